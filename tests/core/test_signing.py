"""Keys and signatures: made once, kept to oneself, and no other fits."""

import os
import stat
from base64 import b64encode
from multiprocessing.pool import ThreadPool

import pytest

from loradar.errors import InvalidConfig, MissingExtra, SignatureInvalid
from loradar.settings import SIGNING_KEY_VARIABLE, Settings
from loradar.snapshots import KEY_FILE, Signer, check_signature

GIVEN = b64encode(bytes(range(32))).decode()
# RFC 8032, section 7.1, test 2: secret key, public key, message and signature.
RFC = tuple(
    bytes.fromhex(text)
    for text in (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    )
)


def test_it_is_the_ed25519_of_the_standard(tmp_path):
    """Key and signature of a test vector of RFC 8032."""
    secret, public, message, signature = RFC
    signer = Signer.of(Settings(tmp_path, "sqlite://", b64encode(secret).decode()))
    assert signer.key == b64encode(public).decode()
    assert signer.sign(message) == b64encode(signature).decode()
    check_signature(signer.key, message, signer.sign(message))


def test_a_key_is_made_once_and_nobody_else_may_read_it(settings):
    """In the folder of the settings."""
    first = Signer.of(settings)
    path = settings.home / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Signer.of(settings).key == first.key
    assert os.listdir(settings.home) == [KEY_FILE]  # noqa: PTH208 - names alone


def test_those_who_come_at_once_have_one_key(settings):
    """Whoever is first makes it."""
    with ThreadPool(8) as pool:
        keys = pool.map(lambda _: Signer.of(settings).key, range(8))
    assert set(keys) == {Signer.of(settings).key}


def test_a_key_that_is_given_goes_first(tmp_path, monkeypatch):
    """Several machines of one service share it; nothing is written."""
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, GIVEN)
    settings = Settings.from_environment()
    assert Signer.of(settings).key == Signer.of(Settings(tmp_path, "sqlite://", GIVEN)).key
    assert not (settings.home / KEY_FILE).exists()
    assert GIVEN not in repr(settings)


@pytest.mark.parametrize("text", ["x", "!" * 44, b64encode(b"short").decode(), GIVEN[:-2], "ключ"])
def test_a_key_that_is_none_is_refused_without_its_value(tmp_path, text):
    """It may be a real one with a slip."""
    with pytest.raises(InvalidConfig, match=SIGNING_KEY_VARIABLE) as caught:
        Signer.of(Settings(tmp_path, "sqlite://", text))
    assert text == "x" or text not in caught.value.message


@pytest.mark.parametrize("content", [b"spoiled", bytes(range(200, 232))], ids=["text", "bytes"])
def test_a_key_s_file_that_is_spoiled_or_away_is_named(tmp_path, content):
    """With the variable that would help."""
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(InvalidConfig, match="signing-key: it must be base64 of 32 bytes"):
        Signer.of(Settings(tmp_path, "sqlite://"))
    with pytest.raises(InvalidConfig, match=SIGNING_KEY_VARIABLE):
        Signer.of(Settings(tmp_path / KEY_FILE, "sqlite://"))


def test_no_other_key_message_or_signature_fits(tmp_path):
    """Each of the three counts."""
    one = Signer.of(Settings(tmp_path / "one", "sqlite://"))
    other = Signer.of(Settings(tmp_path / "other", "sqlite://"))
    for key, message, signature in (
        (other.key, b"said", one.sign(b"said")),
        (one.key, b"said", one.sign(b"Said")),
        (one.key, b"said", other.sign(b"said")),
        (one.key, b"said", b64encode(bytes(64)).decode()),
        (one.key, b"said", "none"),
        ("none", b"said", one.sign(b"said")),
        (b64encode(b"\xff" * 32).decode(), b"said", one.sign(b"said")),
    ):
        with pytest.raises(SignatureInvalid, match=r"key|signature"):
            check_signature(key, message, signature)


def test_the_extra_is_named(tmp_path, monkeypatch):
    """Signing needs a package that lookups do not."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"loradar\[server\]"):
        Signer.of(Settings(tmp_path, "sqlite://"))
    with pytest.raises(MissingExtra, match="cryptography"):
        check_signature("", b"", "")
