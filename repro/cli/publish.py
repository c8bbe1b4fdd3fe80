"""repro publish: results/ as a data set to publish, and to the Hugging Face hub."""

from pathlib import Path

import click

from repro.cli.options import runs_option


@click.command()
@click.argument("sweeps", metavar="[SWEEP]...", nargs=-1)
@runs_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder to write."
)
@click.option(
    "--repo", metavar="USER/NAME", help="Push the folder to this data set repository of the Hugging Face hub."
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def publish(sweeps: tuple[str, ...], runs: Path, out: Path, repo: str | None, dry_run: bool) -> None:
    """Write all tables, in CSV, Markdown and LaTeX, with a data card and citations; say what changed.

    Tables of SWEEP (default: of every sweep that has runs) are rebuilt; those that are in the folder already and
    have no runs here stay, and are described too. Nothing else in the folder is touched. Typed
    again, it changes nothing.

    --repo needs a token that may write, in HF_TOKEN or from `hf auth login`; $HF_ENDPOINT names another hub.
    """
    from repro import publish as publishing

    if repo:
        publishing.check_name(repo)
    publication = publishing.prepare(out, runs, sweeps)
    for line in [*publication.sources, *publication.changes()]:
        click.echo(line)
    for note in publication.notes:
        click.echo(f"note: {note}", err=True)
    count, changed = len(publication.files), len(publication.changed)
    unchanged = f"{count - changed} of {count} files unchanged" if changed else "nothing has changed"
    if dry_run:
        pushed = f", nothing pushed to {repo}" if repo else ""
        click.echo(f"{out}: {unchanged}; nothing was written{pushed} (--dry-run)")
        return
    publishing.write(publication)
    click.echo(f"{out}: {unchanged}")
    if repo:
        click.echo(f"pushed: {publishing.push(repo, out, sorted(publication.files))}")
