"""Key files, in both directions, with `eth_account` and with `ethers`."""

import json
import stat
import subprocess

from eth_account import Account

from proxy import ROOT, command

KEY = "0x" + "42" * 32
ADDRESS = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"
PASSWORD = "pässwörd ✓"


def key_file(directory):
    """The one key file of a directory."""
    files = [path for path in (directory / "keys").iterdir() if not path.name.startswith(".")]
    (path,) = files
    return path


def ethers(expression, *arguments):
    """What an expression of JavaScript comes to, with `ethers` and `argv` at hand."""
    script = f"const ethers = require('ethers'), argv = process.argv.slice(1);\n({expression})"
    done = subprocess.run(
        ["node", "-p", script, *arguments],
        cwd=ROOT / "target/node",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def import_here(content, directory, password):
    """Brings a file of another program in; the wallets that are then listed."""
    directory.mkdir()
    file = directory / "theirs.json"
    file.write_text(content)
    done = command("wallet", "import", file, directory=directory, password=password)
    assert done.returncode == 0, done.stderr
    return command("wallet", "list", directory=directory).stdout


def test_an_imported_key_opens_there(tmp_path):
    done = command("wallet", "import", directory=tmp_path, password=PASSWORD, input=KEY)
    assert done.returncode == 0, done.stderr
    assert ADDRESS in done.stdout
    path = key_file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    opened = Account.decrypt(json.loads(path.read_text()), PASSWORD)
    assert opened.hex().removeprefix("0x") == KEY.removeprefix("0x")
    decrypt = "ethers.Wallet.fromEncryptedJsonSync(argv[0], argv[1]).privateKey"
    assert ethers(decrypt, path.read_text(), PASSWORD) == KEY


def test_an_export_opens_there(tmp_path):
    command("wallet", "import", directory=tmp_path, password="secret", input=KEY)
    (tmp_path / "new").write_text(f"{PASSWORD}\n")
    arguments = ("wallet", "export", "--new-password-file", "new")
    done = command(*arguments, directory=tmp_path, password="secret", input=ADDRESS[-4:])
    assert done.returncode == 0, done.stderr
    opened = Account.decrypt(json.loads(done.stdout), PASSWORD)
    assert opened.hex().removeprefix("0x") == KEY.removeprefix("0x")


def test_a_new_wallet_opens_there_and_is_the_one_that_was_named(tmp_path):
    done = command("wallet", "new", directory=tmp_path, password=PASSWORD)
    assert done.returncode == 0, done.stderr
    text = key_file(tmp_path).read_text()
    address = Account.from_key(Account.decrypt(json.loads(text), PASSWORD)).address
    assert address.lower() in done.stdout
    decrypt = "ethers.Wallet.fromEncryptedJsonSync(argv[0], argv[1]).address"
    assert ethers(decrypt, text, PASSWORD) == address


def test_files_of_eth_account_open_here(tmp_path):
    for kdf, iterations in (("scrypt", 4096), ("pbkdf2", 1000)):
        content = json.dumps(Account.encrypt(KEY, PASSWORD, kdf=kdf, iterations=iterations))
        assert ADDRESS in import_here(content, tmp_path / kdf, PASSWORD)


def test_a_file_of_ethers_opens_here(tmp_path):
    encrypt = "new ethers.Wallet(argv[0]).encryptSync(argv[1])"
    content = ethers(encrypt, KEY, PASSWORD)
    assert ADDRESS in import_here(content, tmp_path / "ethers", PASSWORD)
