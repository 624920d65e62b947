"""What one signature costs in Python, in µs of CPU time: `sign.py BACKEND SECONDS`."""

import sys
import time

import envelope

backend, seconds = sys.argv[1], float(sys.argv[2])
signer = envelope.signer(backend)


def text(number):
    return envelope.message(signer.address, "0123456789abcdef" * 2, str(number), {})


for number in range(20):
    signer.sign(text(number))
texts = [text(number) for number in range(1000)]
end = time.monotonic() + seconds
begun, signatures = time.process_time(), 0
while time.monotonic() < end:
    signer.sign(texts[signatures % len(texts)])
    signatures += 1
print((time.process_time() - begun) / signatures * 1e6)
