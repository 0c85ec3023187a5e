"""Draw what the layers of a CNN make of a picture, as the lecture notes do."""

from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.command_line import Parser
    from torchfromscratch.notes.feature_maps import (
        draw,
        load_picture,
        through_a_trained_network,
        through_the_notes_layers,
    )


def main() -> None:
    """Draw each stage as a PNG."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "image",
        nargs="?",
        type=Path,
        metavar="IMAGE",
        help="default: a portrait that comes with matplotlib; with --checkpoint, the data set's first test picture",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a trained network (runs/<name>/best.pt), layer by layer"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/feature_maps"), metavar="FOLDER", help="default: %(default)s"
    )
    args = parser.parse_args()
    if args.checkpoint:
        stages = through_a_trained_network(args.checkpoint, args.image)
    else:
        stages = through_the_notes_layers(load_picture(args.image))
    args.output.mkdir(parents=True, exist_ok=True)
    for number, (title, maps) in enumerate(stages.items()):
        path = args.output / f"{number:02d}_{title.replace(' ', '_')}.png"
        draw(title, maps, path)
        print(f"{path}: {maps.shape[1]} × {maps.shape[2]}×{maps.shape[3]}")


if __name__ == "__main__":
    run(main)
