"""`symbert push`: an exported folder to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import AsJson, print_json
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
    files = exported_files(folder)
    facts = {"repo": repo, "private": private, "files": files, "bytes": sum(files.values()), "commit": None}
    if not dry_run:
        facts["commit"] = upload(folder, repo, private)
    if as_json:
        print_json(facts)
        return
    for name, size in files.items():
        print(f"{size:>14,} {name}")
    done = f"commit {facts['commit']}" if facts["commit"] else "not uploaded"
    print(f"{facts['bytes']:>14,} bytes to {repo}: {done}")


def _refuse_wrong_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # imported by name, not in __all__

    if repo.count("/") != 1:
        raise refuse("--repo", f"{repo} is not OWNER/NAME")
    with refused_as("--repo", HFValidationError):
        validate_repo_id(repo)


def exported_files(folder: Path) -> dict[str, int]:
    """The sizes of the files to upload, by name. Raises DurableError for a folder that is no export."""
    from durable.errors import DurableError, with_hint

    if not (folder / "config.json").is_file():
        raise with_hint(
            DurableError(f"{folder} holds no config.json, expected an exported folder"),
            "symbert export CHECKPOINT --format hub --out NEW",
        )
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in ("optimizer.safetensors", "state.json"):
        if name in files:
            raise with_hint(
                DurableError(f"{folder} is a checkpoint of a run, expected an exported folder: {name} is for resuming"),
                f"symbert export {folder} --format hub --out NEW",
            )
    return files


def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload every file in one commit; returns its hash, the revision to pin."""
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(repo, private=private, exist_ok=True)
    commit = hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload the model")
    return str(commit.oid)
