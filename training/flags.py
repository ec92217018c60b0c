"""
The flags of training's verbs: types and what `--help` says of them.
"""

from pathlib import Path
from typing import Annotated

import typer

Checkpoint = Annotated[
    Path | None, typer.Option(help="A checkpoint folder, or a folder of them; default: the shipped ones.")
]
ModelName = Annotated[str | None, typer.Option(help="Name of the model, where there are several.")]
DataFolder = Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]

# of a file of rows
TextColumn = Annotated[str, typer.Option(help="Column of the text.")]
TextPairColumn = Annotated[str | None, typer.Option(help="Column of the second text of a pair.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the label.")]
LabelSeparator = Annotated[
    str | None,
    typer.Option(help="A text may have several labels, with this between them, as ';'. JSON lists need no separator."),
]
Encoding = Annotated[str | None, typer.Option(help="Of a file that is not UTF-8 or UTF-16, as cp1252.")]

# of `train`
CheckpointToWrite = Annotated[Path | None, typer.Option(help="Checkpoint folder to write; other variants have none.")]
RecipeFile = Annotated[Path | None, typer.Option(help="A recipe file (TOML); its paths are relative to --data.")]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        help="A text file with a class a line, `label` or `label: a few words`: alone it makes a model without a row, "
        "beside --train it helps where rows are few."
    ),
]
TrainFile = Annotated[
    str | None, typer.Option(help="Without a recipe: a CSV, TSV, JSONL or Parquet file, or a folder of splits.")
]
DevFile = Annotated[str | None, typer.Option(help="Development file; a tenth of the rows is held out without one.")]
WarmStart = Annotated[
    str | None, typer.Option(help="Without a recipe: a checkpoint of the same classes to go on from, as sst2.")
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Without a recipe: small, which ships, or base: twice as wide; its backbone is to be made first, see the "
        "docs."
    ),
]
MaxTokens = Annotated[
    int | None, typer.Option(min=8, max=512, help="Without a recipe: tokens that are read of a text.")
]
Balance = Annotated[
    bool,
    typer.Option("--balance", help="Without a recipe: small classes count for as much as large ones; macro F1."),
]
Variant = Annotated[
    str, typer.Option(help="proposed; or, to compare with, wee, wee-fp or fp: these leave a record, no checkpoint.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of initialisation and order; default: the recipe's.")]
Folds = Annotated[
    int | None,
    typer.Option(min=2, max=20, help="Folds of the cross-validation that chooses and judges heads; default: 5."),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Of pairs: train a network, which reads the rows so often; with --start too."),
]
TeacherEncoder = Annotated[
    str | None,
    typer.Option(help="Of pairs: train a network, beside minilm or mpnet, an encoder that is fine-tuned first."),
]
TakeAtOnce = Annotated[
    bool, typer.Option("--take", help="Make the exit options that the run recommends the checkpoint's default.")
]
Examples = Annotated[
    bool,
    typer.Option("--examples", help="Store a text of yours for each of six classes, which everyone on the page sees."),
]
Work = Annotated[
    Path | None, typer.Option(help="Folder that keeps the progress of a recipe's runs; default: runs/<its name>.")
]

# of `distill`
BackboneRecipeFile = Annotated[Path, typer.Option(help="A backbone's recipe (TOML); its paths are relative to --data.")]
BackboneToWrite = Annotated[
    Path,
    typer.Option(
        help="Folder of the 1-bit backbone to write; its full-precision counterpart goes beside it, as OUT-full."
    ),
]
BackboneWork = Annotated[
    Path | None, typer.Option(help="Folder that keeps the run's progress; default: runs/<name of the backbone>.")
]
Minutes = Annotated[
    float | None,
    typer.Option(min=0.01, help="In place of the recipe's tokens: so many minutes, half of them for each stage."),
]

# of `evaluate`
LabelledRows = Annotated[Path | None, typer.Argument(help="Labelled rows: CSV, TSV, JSONL or Parquet.")]
EveryCheckpoint = Annotated[
    bool, typer.Option("--all", help="Every checkpoint on the development rows that it names, under --data.")
]
DataFolderOfAll = Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder, for --all.")]
Metric = Annotated[
    str | None,
    typer.Option(help="accuracy, f1, macro_f1, micro_f1 or matthews; default: accuracy, of several labels micro_f1."),
]
Picture = Annotated[Path | None, typer.Option(help="Draw the same as a PNG, SVG or PDF.")]
ConfusionPicture = Annotated[
    Path | None, typer.Option(help="Draw which class is taken for which as a PNG, SVG or PDF.")
]
Take = Annotated[
    bool, typer.Option("--take", help="Make the exit options that are recommended the default of --checkpoint.")
]

Device = Annotated[str, typer.Option(help="Where to train: auto, cpu, cuda, or a device by torch's name.")]

# of `tune`
CheckpointToTune = Annotated[
    str, typer.Argument(help="A checkpoint folder, or the name of a shipped one (with --out).")
]
UnseenRows = Annotated[Path, typer.Argument(help="Rows like those to come, that training did not see.")]
OptionalLabelColumn = Annotated[
    str | None, typer.Option(help="Column of the label; without one, full depth is what is agreed with.")
]
FlopsBudget = Annotated[float | None, typer.Option(help="At most this share of full depth's FLOPs, as 0.4.")]
LatencyBudget = Annotated[float | None, typer.Option(help="At most so many milliseconds a row, on this machine.")]
Agreement = Annotated[float | None, typer.Option(help="At least this agreement with full depth, as 0.98.")]
Risk = Annotated[
    float | None, typer.Option(help="At most this risk by leaving early, as 0.02, shown with --confidence.")
]
Confidence = Annotated[float, typer.Option(help="How sure a bound on --risk has to be.")]
ProfileName = Annotated[str | None, typer.Option(help="What to call the profile; default: as flops-40.")]
DefaultProfile = Annotated[
    bool, typer.Option("--default", help="The profile is in effect where a request asks for nothing.")
]
CopyFolder = Annotated[Path | None, typer.Option(help="Write a copy there; the checkpoint stays as it is.")]
