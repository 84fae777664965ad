"""Content Credentials (C2PA): a signed manifest in a video that says it is made by a machine, and with what.

Signing is optional: it needs the package c2pa-python and a certificate of the user's own. Nothing goes to the
network: no time-stamp authority, no look-ups of certificates or of remote manifests.
Source: C2PA technical specification 2.1; the term for the source is IPTC's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import ConfigError, DependencyError, OutputError
from ...files import atomic_path
from .container import DIGITAL_SOURCE_TYPE

FORMATS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".png": "image/png"}
SETTINGS_LABEL = "io.github.letstalk.generation"
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
UNCHANGED = "unchanged since it was signed"
STATES = {"Valid": UNCHANGED, "Trusted": UNCHANGED, "Invalid": "changed, or damaged"}
BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # the uuid box of MP4 that holds manifests
BOX_WITHIN = 2**16  # bytes of a file in which it begins


def _c2pa() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise DependencyError(
            f"signing needs c2pa-python ({error}); pip install 'letstalk-portrait[c2pa]', or leave out --sign"
        ) from None
    return c2pa


class ContentSigner:
    """Signs finished files with a certificate chain and its key, both PEM; the chain begins with the signer's.

    Raises: DependencyError without the package, ConfigError for certificates and keys that cannot sign.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._c2pa = _c2pa()
        self._chain, self._key = _read(certificate, "certificate"), _read(key, "key")
        self._alg = _algorithm(self._key, key)
        try:
            self._signer().close()
        except self._c2pa.C2paError as error:
            raise ConfigError(f"{certificate}: cannot sign with {key} ({_line(error)})") from None

    def _signer(self) -> Any:
        info = self._c2pa.C2paSignerInfo(self._alg, self._chain, self._key, None)  # None: no time-stamp authority
        return self._c2pa.Signer.from_info(info)

    def sign(self, path: Path, details: Mapping[str, Any], title: str | None = None) -> None:
        """Put a signed manifest into a file, which keeps its name. `details`: JSON values. `title`: the name that
        the manifest tells, if the file gets another one. Raises: OutputError."""
        form = FORMATS.get(path.suffix.lower())
        if form is None:
            raise ConfigError(f"{path}: files of this kind cannot be signed, only {', '.join(FORMATS)}")
        agent = {"name": "LetsTalk", "version": __version__}
        created = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE, "softwareAgent": agent}
        manifest = {
            "claim_generator_info": [agent],
            "title": title or path.name,
            "format": form,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
                {"label": SETTINGS_LABEL, "data": dict(details)},
            ],
        }
        try:
            with atomic_path(path) as temporary, self._c2pa.Context.from_dict(OFFLINE) as context:
                builder = self._c2pa.Builder.from_json(json.dumps(manifest), context)
                with builder, self._signer() as signer, path.open("rb") as read, temporary.open("w+b") as write:
                    builder.sign(signer, form, read, write)
        except self._c2pa.C2paError as error:
            raise OutputError(
                f"{path}: cannot be signed ({_line(error)}); check certificate and key, or leave out --sign"
            ) from None


def read_credentials(path: Path) -> dict[str, Any] | None:
    """What the active manifest of a file says, or None where there is none. Never raises for damaged ones."""
    form = FORMATS.get(path.suffix.lower())
    if form is None or (form != "image/png" and not _has_box(path)):
        return None
    try:
        c2pa = _c2pa()
    except DependencyError:
        return (
            None if form == "image/png" else {"state": "present; pip install 'letstalk-portrait[c2pa]' shows it"}
        )
    try:
        with (
            path.open("rb") as file,
            c2pa.Context.from_dict(OFFLINE) as context,
            c2pa.Reader(form, file, context=context) as reader,
        ):
            return _summary(json.loads(reader.json()))
    except c2pa.C2paError as error:
        return None if "ManifestNotFound" in type(error).__name__ else {"state": f"unreadable ({_line(error)})"}
    except ValueError as error:
        return {"state": f"unreadable ({error})"}


def _summary(store: Mapping[str, Any]) -> dict[str, Any]:
    """The few facts that people ask for.

    Whoever signs writes any name into a certificate of his own. No list of trusted ones is asked here, so a sound
    signature shows that the file is as its signer left it, and not who that was.
    """
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    signature, trusted = manifest.get("signature_info", {}), store.get("validation_state") == "Trusted"
    found: dict[str, Any] = {
        "state": STATES.get(str(store.get("validation_state")), store.get("validation_state")),
        "problems": [p.get("code") for p in store.get("validation_status", [])],
        "made_by": [f"{g.get('name')} {g.get('version', '')}" for g in manifest.get("claim_generator_info", [])],
        "signer": "verified" if trusted else "not verified: the certificate is on no list of trusted ones",
        "claims_to_be": signature.get("common_name") or signature.get("issuer"),
        "algorithm": signature.get("alg"),
    }
    for assertion in manifest.get("assertions", []):
        data = assertion.get("data", {})
        if assertion.get("label", "").startswith("c2pa.actions"):
            found["actions"] = [
                {k: action[k] for k in ("action", "digitalSourceType") if k in action}
                for action in data.get("actions", [])
            ]
        elif assertion.get("label") == SETTINGS_LABEL:
            found["letstalk"] = data
    return found


def _has_box(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return BOX in file.read(BOX_WITHIN)
    except OSError:
        return False


def _read(path: Path, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the {what} cannot be read ({error.strerror})") from None
    if b"-----BEGIN" not in data:
        raise ConfigError(f"{path}: holds no {what} in PEM form; convert it with openssl")
    return data


def _algorithm(key: bytes, path: Path) -> str:
    """C2PA's name of what a private key signs with. Raises: ConfigError."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is not an unencrypted private key ({_line(error)})") from None
    curves = {256: "es256", 384: "es384", 521: "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.key_size in curves:
        return curves[private.curve.key_size]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise ConfigError(f"{path}: is a {type(private).__name__}; C2PA signs with EC, Ed25519 or RSA keys")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
