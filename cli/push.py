"""`symbert push`: an exported folder to the Hugging Face hub."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.console import AsJson, print_json, say, show
from cli.values import refuse, refused_as

Folder = Annotated[Path, typer.Argument(help="A folder of `symbert export`.")]
Repository = Annotated[str, typer.Option("--repo", help="OWNER/NAME on the hub; it is made if it does not exist.")]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded, and ask the hub nothing.")]


def push(
    folder: Folder, repo: Repository, private: Private = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Upload an exported folder; huggingface_hub reads the token of `hf auth login`."""
    _refuse_wrong_name(repo)
    files, hidden = exported_files(folder)
    if hidden:
        say(f"left out, for it is hidden: {', '.join(hidden)}")
    facts = {"repo": repo, "private": private, "files": files, "bytes": sum(files.values()), "commit": None}
    if not dry_run:
        facts["commit"] = upload(folder, list(files), repo, private)
    if as_json:
        print_json(facts)
        return
    for name, size in files.items():
        show(f"{size:>14,} {name}")
    done = f"commit {facts['commit']}" if facts["commit"] else "not uploaded"
    show(f"{facts['bytes']:>14,} bytes to {repo}: {done}")


def _refuse_wrong_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # imported by name, not in __all__

    if repo.count("/") != 1:
        raise refuse("--repo", f"{repo} is not OWNER/NAME")
    with refused_as("--repo", HFValidationError):
        validate_repo_id(repo)


def exported_files(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The sizes of the files to upload, by name; and the names of hidden files and folders, which are not.

    Raises DurableError for a folder that is no export, or that holds a link: what it leads to was not exported.
    """
    from durable.errors import DurableError, with_hint
    from durable.files import is_hidden

    if not (folder / "config.json").is_file():
        raise with_hint(
            DurableError(f"{folder} holds no config.json, expected an exported folder"),
            "symbert export CHECKPOINT --format hub --out NEW",
        )
    hidden = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob(".*"))
        if not is_hidden(path.relative_to(folder).parent)
    ]
    inside = [path for path in sorted(folder.rglob("*")) if not is_hidden(path.relative_to(folder))]
    if links := [path for path in inside if path.is_symlink()]:
        raise with_hint(
            DurableError(f"{links[0]} is a link to {links[0].readlink()}, expected the files of an export alone"),
            f"remove it; or `cp -rL {shlex.quote(str(folder))} NEW`, look at what NEW holds, and push that",
        )
    files = {str(path.relative_to(folder)): path.stat().st_size for path in inside if path.is_file()}
    for name in ("optimizer.safetensors", "state.json"):
        if name in files:
            raise with_hint(
                DurableError(f"{folder} is a checkpoint of a run, expected an exported folder: {name} is for resuming"),
                f"symbert export {shlex.quote(str(folder))} --format hub --out NEW",
            )
    return files, hidden


def upload(folder: Path, names: list[str], repo: str, private: bool) -> str:
    """Upload these files in one commit; returns its hash, the revision to pin."""
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi()
    hub.create_repo(repo, private=private, exist_ok=True)
    files = [CommitOperationAdd(name, folder / name) for name in names]
    return str(hub.create_commit(repo, files, commit_message="Upload the model").oid)
