"""The letters of Chinese pictures: a subset of Noto Sans CJK SC, small enough to ship with the course.

python tools/font.py [NotoSansCJK-Regular.ttc]

It takes the collection of Debian's fonts-noto-cjk, and keeps of it the most common 3,755 characters (the first level of
GB 2312), Chinese punctuation, and whatever else the catalogues hold, as far as matplotlib's own font has them not.
"""

import io
import sys
from pathlib import Path

import po
from catalogues import path_of, templates
from fontTools import subset
from fontTools.ttLib import TTCollection, TTFont
from languages import ROOT
from matplotlib import get_data_path

from rvq_tutorial.autoencoder.files import write_whole
from rvq_tutorial.course.languages import LOCALE

DEBIAN = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
FAMILY = "Noto Sans CJK SC"
FONT = LOCALE / "zh" / "NotoSansCJKsc-subset.otf"
LEVEL_1 = range(0xB0, 0xD8)  # rows of GB 2312
PUNCTUATION = "、。〈〉《》「」『』【】〔〕！（），．：；？［］～％＋－＝＜＞￥　"


def common() -> set[str]:
    """The characters of the first level of GB 2312."""
    rows = (bytes([row, column]) for row in LEVEL_1 for column in range(0xA1, 0xFF))
    return {character for pair in rows for character in pair.decode("gb2312", "ignore")}


def used(language: str) -> set[str]:
    """Every character of the catalogues of a language."""
    paths = [path_of(name, language) for name in templates()]
    return {character for path in paths for entry in po.read(path) for character in entry.string or ""}


def known(font: Path) -> set[str]:
    """The characters that a font has."""
    with TTFont(font, lazy=True) as opened:
        return set(map(chr, opened.getBestCmap()))


def plain() -> set[str]:
    """The characters of matplotlib's own font, which the pictures take first; and what is never drawn."""
    return known(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")) | {"\n"}


def main() -> None:
    """Write the subset, with a family name of its own."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN
    fonts = TTCollection(source, lazy=True).fonts
    font = next(font for font in fonts if font["name"].getDebugName(1) == FAMILY)
    options = subset.Options(layout_features=[], hinting=False, desubroutinize=False, name_IDs=[0, 1, 2, 4, 6, 13, 14])
    options.notdef_outline = True
    subsetter = subset.Subsetter(options)
    wanted = (common() | set(PUNCTUATION) | used("zh")) - plain()
    subsetter.populate(unicodes=map(ord, wanted))
    subsetter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 4):
            record.string = f"{FAMILY} subset"
    buffer = io.BytesIO()
    font.recalcTimestamp = False
    font.save(buffer)
    write_whole(FONT, buffer.getvalue())
    missing = wanted - known(FONT)
    print(
        f"{FONT.relative_to(ROOT)}: {len(wanted)} characters, {FONT.stat().st_size / 1e6:.2f} MB; not in the font:",
        *missing,
    )


if __name__ == "__main__":
    main()
