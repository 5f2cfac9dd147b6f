"""The commands: each reads its arguments, calls the library and prints. What is heavy to import is
imported by the command that needs it."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from offramp import OfframpError, __version__


class Commands(click.Group):
    """A group whose commands' faults are one line, with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except OfframpError as error:
            raise click.ClickException(str(error)) from None
        except ModuleNotFoundError as error:
            extra = "onnxruntime" if str(error.name).startswith("onnx") else "pipeline"
            raise click.ClickException(
                f"needs the package {error.name}: pip install '.[{extra}]', in a clone"
            ) from None


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
results_folder = click.option(
    "--results", default="results", show_default=True, help="The results folder of a run."
)
of_split = click.option(
    "--split", type=click.Choice(["test", "val", "train"]), default="test", show_default=True
)


def tell(answer: Any, lines: Iterable[str], as_json: bool) -> None:
    """Print an answer: as JSON for a machine, else as its lines of text."""
    if as_json:
        lines = [json.dumps(answer)]
    for line in lines:
        click.echo(line)


def aligned(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Rows in aligned columns, line by line."""
    table = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        yield "  ".join(map(str.ljust, cells, widths)).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}"
    return "" if value is None else str(value)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def offramp() -> None:
    """Early exit: how much time it saves in a network, at what accuracy, and a policy to use.

    `offramp run` makes the tables of a results folder; the other commands answer from these, or put
    a policy to use.
    """


@offramp.command()
@click.argument("targets", nargs=-1)
@click.option("-c", "--config", multiple=True, help="A config file over config.yaml; repeatable.")
@click.option("--cores", default=4, show_default=True, help="How many jobs may run at once.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would run.")
@as_json
def run(
    targets: tuple[str, ...], config: tuple[str, ...], cores: int, dry_run: bool, as_json: bool
) -> None:
    """Run the pipeline in this folder, a clone of the repository.

    Without TARGETS everything; else these files, as in `offramp run results/sweep.parquet`. The
    exit code is Snakemake's. With --json its words go to stderr.
    """
    from offramp.commands import pipeline

    _need_snakemake()
    if not Path("Snakefile").exists():
        raise OfframpError("no Snakefile here: go into a clone of the repository, then run again")
    arguments = [*targets, *(["-n"] if dry_run else [])]
    _exit(pipeline.snakemake(Path("Snakefile"), cores, arguments, config, as_json), as_json)


def _need_snakemake() -> None:
    if find_spec("snakemake") is None:
        raise ModuleNotFoundError(name="snakemake")


def _exit(outcome: dict[str, Any], as_json: bool) -> None:
    """Exit with the code of a run, of which people have seen all."""
    tell(outcome, [], as_json)
    sys.exit(outcome["exit_code"])


@offramp.command("from-logits")
@click.argument("val", type=click.Path(exists=True, dir_okay=False))
@click.argument("test", type=click.Path(exists=True, dir_okay=False))
@click.option("--costs", required=True, help="What each exit adds, as in 1,1,2,2; in any unit.")
@click.option("--unit", default="units", show_default=True, help="What the costs are in.")
@click.option("--train", type=click.Path(exists=True, dir_okay=False), help="Logits of train data.")
@click.option("--results", default="results/own", show_default=True, help="A folder for all of it.")
@click.option("--cores", default=4, show_default=True, help="How many jobs may run at once.")
@as_json
def from_logits(
    val: str,
    test: str,
    costs: str,
    unit: str,
    train: str | None,
    results: str,
    cores: int,
    as_json: bool,
) -> None:
    """The whole analysis of saved logits, in any folder.

    `offramp from-logits val.npz test.npz --costs 1,1,2,2`:
    VAL and TEST hold `logits` (samples, exits, classes) and `labels`. No network, no clone, no
    config to write: the one that it writes is RESULTS/config.yaml.
    """
    import yaml

    from offramp.commands import pipeline

    try:
        blocks = [float(text) for text in costs.split(",")]
    except ValueError:
        raise click.BadParameter(f"{costs}: want numbers, as in 1,1,2,2") from None
    _need_snakemake()
    snakefile = pipeline.snakefile()
    config: dict[str, Any] = {"results": results, "logits": {"val": val, "test": test}}
    config["logits"] |= {"train": train} if train else {}
    config["costs"] = {"blocks": blocks, "heads": [0.0] * len(blocks), "unit": unit}
    file = Path(results, "config.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    _exit(pipeline.snakemake(snakefile, cores, [], [str(file)], as_json), as_json)


@offramp.command()
@click.argument("cutoffs")
@results_folder
@of_split
@as_json
def sweep(cutoffs: str, results: str, split: str, as_json: bool) -> None:
    """Accuracy and time of a cutoff, or of several.

    `offramp sweep 0.3,0.6` takes each as one cutoff for all exits. Exact, from the tables of
    a run. Low scores leave: a higher cutoff is faster.
    """
    from offramp.commands import answers

    try:
        values = [float(text) for text in cutoffs.split(",")]
    except ValueError:
        raise click.BadParameter(f"{cutoffs}: want numbers, as in 0.3,0.6") from None
    rows = answers.sweep(Path(results), split, values)
    tell(rows, aligned(rows), as_json)


@offramp.command()
@click.argument("sample_id", type=int)
@results_folder
@click.option("--policy", default="best", show_default=True, help="A name in policies/, or a file.")
@of_split
@as_json
def explain(sample_id: int, results: str, policy: str, split: str, as_json: bool) -> None:
    """Where one sample leaves, and why.

    Shows its image, and what each exit says of it. SAMPLE_ID is its place in the
    dataset's own files, as in the tables.
    """
    from offramp.commands import answers, picture

    answer = answers.explain(Path(results), split, policy, sample_id)

    def lines() -> Iterator[str]:
        image = answers.image_of(Path(results), split, sample_id)
        if image is not None:
            yield picture.drawn(image, colours=sys.stdout.isatty())
        yield from aligned(answer["exits"])
        yield answer["why"]

    tell(answer, lines(), as_json)


@offramp.group()
def policy() -> None:
    """Look at a policy, or hold two against each other."""


@policy.command("show")
@click.argument("file")
@as_json
def policy_show(file: str, as_json: bool) -> None:
    """What is in a policy FILE, in words."""
    from offramp.commands import use

    facts = use.described(Path(file))
    tell(facts, (f"{name:14}{value}" for name, value in facts.items()), as_json)


@policy.command("compare")
@click.argument("a")
@click.argument("b")
@results_folder
@as_json
def policy_compare(a: str, b: str, results: str, as_json: bool) -> None:
    """How far apart policies A and B are on test data.

    In accuracy and predicted time. A and B are names in policies/ of the results folder,
    or files. The difference in accuracy is paired, sample by sample, with its 95 % interval.
    """
    from offramp.commands import answers

    answer = answers.compare(Path(results), [a, b])
    points, low, high = (100 * answer[key] for key in ("difference", "low", "high"))
    difference = f"{a} less {b}: {points:+.2f} percentage points [{low:+.2f}, {high:+.2f}]"
    tell(answer, [*aligned(answer["policies"]), difference], as_json)


@offramp.command()
@click.argument("policy")
@click.argument("folder")
@click.option("--weights", help="The network's weights, if they lie elsewhere.")
@as_json
def export(policy: str, folder: str, weights: str | None, as_json: bool) -> None:
    """Write a policy and its network, to run elsewhere.

    Into FOLDER goes what runs without this project: one ONNX file per stage, and run.py,
    which needs numpy and onnxruntime. In a clone, `offramp run results/export.parquet` exports the
    best policy, proves it on test data and takes its speed.
    """
    from offramp.inference.export import export as write

    manifest = write(policy, weights, folder)
    usage = f"{folder}: python {folder}/run.py IMAGES.npy OUT.npz"
    tell({"folder": folder, **manifest}, [usage], as_json)


@offramp.command()
@click.argument("folder")
@click.argument("images", nargs=-1, required=True)
@as_json
def predict(folder: str, images: tuple[str, ...], as_json: bool) -> None:
    """What an exported FOLDER says of IMAGES, picture files.

    The pictures may be of any size.
    """
    from offramp.commands import use

    rows = use.predict(Path(folder), images)
    tell(rows, aligned(rows), as_json)
