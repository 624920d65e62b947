"""A key file of Web3 Secret Storage: `key_file.py PASSWORD COST`, the cost being scrypt's n."""

import json
import os
import sys

from eth_account import Account

password, cost = sys.argv[1:]
print(json.dumps(Account.encrypt(os.environ["KEY"], password, kdf="scrypt", iterations=int(cost))))
