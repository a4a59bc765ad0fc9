"""Word count over S3: ranks read texts from a bucket, exchange the words by their hash, and write the counts back.

fmirun -n 4 --data docs --results counts examples/word_count.py

Each rank writes <RESULT_PATH>/<rank>.json: the words that it owns, with their numbers in all texts.
"""

import json
import os
import re
import zlib
from collections import Counter

import boto3
import fmi
import numpy as np

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "word_count")
s3 = boto3.client("s3")

# The function *initialize* has distributed the data over the ranks, and written who reads what.
payload = os.environ.get("PAYLOAD_KEY", "payload.json")
event = json.loads(s3.get_object(Bucket=os.environ["S3_BUCKET"], Key=payload)["Body"].read())
keys = event["data_map"].get(str(rank), [])
words = Counter()
for key in [keys] if isinstance(keys, str) else keys:
    text = s3.get_object(Bucket=os.environ["DATA_BUCKET"], Key=key)["Body"].read().decode(errors="replace")
    words.update(re.findall(r"[^\W\d_]+", text.lower()))

# The owner of a word follows from its hash, the same on all ranks. Each rank sends every owner its counts as JSON.
shares = [{} for _ in range(world_size)]
for word, count in words.items():
    shares[zlib.crc32(word.encode()) % world_size][word] = count
messages = [json.dumps(share).encode() for share in shares]
sent = np.array([len(message) for message in messages])
received = comm.alltoall(sent)
joined = np.frombuffer(b"".join(messages), dtype=np.uint8)
parts = bytes(comm.alltoallv(joined, sent.tolist(), received.tolist()))

owned = Counter()
for end, length in zip(received.cumsum(), received, strict=True):
    owned.update(json.loads(parts[end - length : end]))
body = json.dumps(dict(owned.most_common()), ensure_ascii=False).encode()
s3.put_object(Bucket=os.environ["S3_BUCKET"], Key=f"{os.environ['RESULT_PATH']}/{rank}.json", Body=body)

totals = comm.allreduce(np.array([owned.total(), len(owned)]), fmi.func(fmi.op.sum))
if rank == 0:
    print(f"{totals[0]:,} words, {totals[1]:,} different ones")
