"""`symbert verify`: is a corpus still what its manifest says?"""

from typing import Annotated

import typer

from cli.console import AsJson, print_json, say, show
from durable.signals import EXIT_DONE, EXIT_QUARANTINED


def verify(
    folder: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="A corpus folder that `symbert prepare` made, here or copied.")
    ],
    as_json: AsJson = False,
) -> int:
    """Hash and count every file of a corpus again and close its ledger again; exit 3 if anything is wrong."""
    from durable.remote import place
    from oscar_prep.manifest import read_manifest
    from oscar_prep.verify import verify as find_damage

    corpus = place(folder)
    damage = find_damage(corpus)
    manifest = read_manifest(corpus)
    if as_json:
        print_json({"corpus_hash": manifest["corpus_hash"], "damage": [vars(found) for found in damage]})
    else:
        for found in damage:
            show(f"{found.file}: {found.problem}")
        if not damage:
            show(
                f"{corpus}: {len(manifest['units'])} units as the manifest says, corpus {manifest['corpus_hash'][:16]}…"
            )
    if damage:
        say("\nhint: delete what is named, then run the command that made the corpus again: it makes that anew")
    return EXIT_QUARANTINED if damage else EXIT_DONE
