"""Signed videos: a manifest that says they are made by a machine. Skipped without c2pa-python and openssl."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from letstalk_core.cli.info import describe
from letstalk_core.errors import ConfigError, DependencyError
from letstalk_core.media.video import content_credentials
from letstalk_core.media.video.container import DIGITAL_SOURCE_TYPE
from letstalk_core.media.video.content_credentials import ContentSigner, read_credentials
from letstalk_core.media.video.writer import VideoWriter

DETAILS = {"version": "0.1.0", "models_sha256": {"dit": "ab" * 32}, "settings": {"seed": 7}}
CURVES = {"p256": ("prime256v1", "Es256"), "p384": ("secp384r1", "Es384")}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "talk.mp4"
    with VideoWriter(path, 25, (32, 32), metadata={"letstalk": DETAILS}) as writer:
        writer.write(torch.zeros(10, 32, 32, 3, dtype=torch.uint8))
    return path


def openssl(folder: Path, *arguments: str, given: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, input=given).stdout


@pytest.fixture(params=CURVES)
def chain(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A certificate for signing under a root of our own, its key, and the name of the algorithm."""
    pytest.importorskip("c2pa")
    pytest.importorskip("cryptography")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    curve, algorithm = CURVES[request.param]
    ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl(folder, "ecparam", "-name", curve, "-genkey", "-noout", "-out", "root.key")
    subject = ("-subj", "/O=Test/CN=Test root")
    openssl(folder, "req", "-x509", "-new", "-key", "root.key", "-days", "2", *subject, *ca, "-out", "root.pem")
    key = openssl(folder, "ecparam", "-name", curve, "-genkey", "-noout")
    (folder / "signer.key").write_bytes(openssl(folder, "pkcs8", "-topk8", "-nocrypt", given=key))
    request_ = openssl(folder, "req", "-new", "-key", "signer.key", "-subj", "/O=Test/CN=Test signer")
    (folder / "signer.ext").write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=emailProtection\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer\n"
    )
    signing = ("-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "2", "-extfile", "signer.ext")
    signer = openssl(folder, "x509", "-req", *signing, given=request_)
    (folder / "chain.pem").write_bytes(signer + (folder / "root.pem").read_bytes())
    return folder / "chain.pem", folder / "signer.key", algorithm


def test_a_signed_video_says_that_a_machine_made_it(chain: tuple[Path, Path, str], video: Path) -> None:
    certificate, key, algorithm = chain
    assert read_credentials(video) is None
    ContentSigner(certificate, key).sign(video, DETAILS)
    found = read_credentials(video)
    assert found is not None and found["algorithm"] == algorithm
    assert found["state"] == "unchanged since it was signed"
    assert found["problems"] == ["signingCredential.untrusted"]  # our root is on nobody's list
    assert found["actions"] == [{"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE}]
    assert found["letstalk"] == DETAILS
    assert found["claims_to_be"] == "Test signer" and found["signer"].startswith("not verified")  # anyone's name
    assert "Valid" not in str(found) and "signed_by" not in found
    told = describe(video)
    assert told["content_credentials"] == found and told["metadata"]["letstalk"] == DETAILS
    assert told["streams"][0]["frames"] == 10
    assert sorted(p.name for p in video.parent.iterdir()) == ["talk.mp4"]


def test_a_changed_video_is_found_out(chain: tuple[Path, Path, str], video: Path) -> None:
    ContentSigner(*chain[:2]).sign(video, DETAILS)
    data = bytearray(video.read_bytes())
    place = data.find(b"mdat") + 200
    data[place] ^= 0xFF
    video.write_bytes(data)
    found = read_credentials(video)
    assert found is not None and found["state"].startswith("changed")
    assert any("mismatch" in problem for problem in found["problems"])


def test_without_the_package_the_manifest_is_at_least_noticed(
    chain: tuple[Path, Path, str], video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise DependencyError("signing needs c2pa-python")

    ContentSigner(*chain[:2]).sign(video, DETAILS)
    monkeypatch.setattr(content_credentials, "_c2pa", missing)
    found = read_credentials(video)
    assert found is not None and "pip install" in found["state"]


def test_certificates_and_keys_that_cannot_sign_are_told(chain: tuple[Path, Path, str], tmp_path: Path) -> None:
    certificate, key, _ = chain
    (tmp_path / "text.pem").write_text("hello")
    (tmp_path / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nhello\n-----END PRIVATE KEY-----\n")
    for bad, message in (
        ((tmp_path / "none.pem", key), "certificate cannot be read"),
        ((tmp_path / "text.pem", key), "no certificate in PEM form"),
        ((certificate, tmp_path / "broken.key"), "not an unencrypted private key"),
    ):
        with pytest.raises(ConfigError, match=message):
            ContentSigner(*bad)


def test_damaged_manifests_are_described_and_raise_nothing(chain: tuple[Path, Path, str], video: Path) -> None:
    ContentSigner(*chain[:2]).sign(video, DETAILS)
    good = video.read_bytes()
    start = good.find(content_credentials.BOX)
    for offset in range(16, 3000, 97):
        data = bytearray(good)
        data[start + offset] ^= 0xFF
        video.write_bytes(data)
        found = read_credentials(video)
        assert found is None or isinstance(found["state"], str)


def test_signing_without_the_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(DependencyError, match=r"letstalk-portrait\[c2pa\]"):
        ContentSigner(tmp_path / "a.pem", tmp_path / "a.key")
