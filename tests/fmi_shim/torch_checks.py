"""What ranks under torchrun check of the backend ``fmi``: ``torchrun ... torch_checks.py FOLDER``.

Each check is run by all ranks. The ranks write ``FOLDER/RANK.json``: for each check the error, or the empty text.
"""

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from fmi_shim.torch_backend import register

Check = Callable[[int, int], None]
CHECKS: dict[str, Check] = {}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check(run: Check) -> Check:
    CHECKS[run.__name__] = run
    return run


def equal(found: torch.Tensor, expected: object) -> None:
    expected = torch.as_tensor(expected, dtype=found.dtype)
    assert torch.equal(found, expected), f"{found} is not {expected}"


@check
def allreduce(rank: int, size: int) -> None:
    values = torch.arange(1, size + 1)
    results = {
        dist.ReduceOp.SUM: values.sum(),
        dist.ReduceOp.PRODUCT: values.prod(),
        dist.ReduceOp.MIN: 1,
        dist.ReduceOp.MAX: size,
    }
    for op, expected in results.items():
        for dtype in (*_FLOATS, *_INTEGERS):
            tensor = torch.full((2, 3), rank + 1, dtype=dtype)
            dist.all_reduce(tensor, op)
            equal(tensor, torch.full((2, 3), int(expected)))


@check
def no_file_would_remain_if_the_rank_were_killed(rank: int, size: int) -> None:
    assert not list(Path(tempfile.gettempdir()).glob("fmi-*"))


@check
def allreduce_of_means_and_bits(rank: int, size: int) -> None:
    tensor = torch.full((5,), float(rank))
    dist.all_reduce(tensor, dist.ReduceOp.AVG)
    equal(tensor, [(size - 1) / 2] * 5)
    for op, expected in ((dist.ReduceOp.BAND, 4), (dist.ReduceOp.BOR, 7), (dist.ReduceOp.BXOR, 4 if size % 2 else 0)):
        bits = torch.tensor([4 | (rank % 2) | (2 if rank == 0 else 0)])
        dist.all_reduce(bits, op)
        if op is dist.ReduceOp.BXOR:
            expected ^= (sum(other % 2 for other in range(size)) % 2) | 2
        equal(bits, [expected])


@check
def integers_wrap(rank: int, size: int) -> None:
    tensor = torch.full((1,), 127, dtype=torch.int8)
    dist.all_reduce(tensor)
    equal(tensor, [(127 * size + 128) % 256 - 128])


@check
def sparse_tensors(rank: int, size: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        # Rank r has r rows: rank 0 none.
        indices = torch.arange(rank).reshape(1, -1)
        own = torch.sparse_coo_tensor(indices, torch.full((rank, 2), rank + 1.0, dtype=dtype), (size, 2))
        dist.all_reduce(own)
        equal(own.to_dense()[:, 0], [float(sum(range(row + 2, size + 1))) for row in range(size)])


@check
def tensors_that_are_not_contiguous(rank: int, size: int) -> None:
    whole = torch.zeros(4, 6)
    part = whole.t()[1:3]
    part += rank
    dist.all_reduce(part)
    equal(part, torch.full((2, 4), float(sum(range(size)))))
    equal(whole[:, 0], torch.zeros(4))
    column = torch.full((3, 2), float(rank))[:, 0]
    dist.broadcast(column, 1)
    equal(column, [1.0] * 3)


@check
def broadcast_and_reduce_have_a_root(rank: int, size: int) -> None:
    for root in range(size):
        for dtype in (torch.float32, torch.bfloat16, torch.bool, torch.float8_e4m3fn, torch.complex64):
            tensor = torch.full((3,), rank == root, dtype=torch.float32).to(dtype)
            dist.broadcast(tensor, root)
            assert tensor.to(torch.complex64).real.tolist() == [1.0] * 3, dtype
        tensor = torch.full((2,), float(rank))
        dist.reduce(tensor, root)
        equal(tensor, [float(sum(range(size)))] * 2 if rank == root else [float(rank)] * 2)


@check
def gathers(rank: int, size: int) -> None:
    own = torch.full((2, 2), rank)
    parts = [torch.empty(2, 2, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(parts, own)
    for other, part in enumerate(parts):
        equal(part, torch.full((2, 2), other))
    whole = torch.empty(2 * size, 2, dtype=torch.int64)
    dist.all_gather_into_tensor(whole, own)
    equal(whole[::2, 0], list(range(size)))
    gathered = [torch.empty(2, 2, dtype=torch.int64) for _ in range(size)] if rank == 1 else None
    dist.gather(own, gathered, dst=1)
    for other, part in enumerate(gathered or []):
        equal(part, torch.full((2, 2), other))


@check
def scatters(rank: int, size: int) -> None:
    own = torch.empty(3)
    dist.scatter(own, [torch.full((3,), float(other)) for other in range(size)] if rank == 1 else None, src=1)
    equal(own, [float(rank)] * 3)
    output = torch.empty(2)
    dist.reduce_scatter(output, [torch.full((2,), float(other + rank)) for other in range(size)])
    equal(output, [float(rank * size + sum(range(size)))] * 2)
    dist.reduce_scatter_tensor(output, torch.arange(2.0 * size), op=dist.ReduceOp.AVG)
    equal(output, [2.0 * rank, 2.0 * rank + 1])


@check
def exchanges(rank: int, size: int) -> None:
    outputs = [torch.empty(other + 1) for other in range(size)]
    dist.all_to_all(outputs, [torch.full((rank + 1,), 10.0 * rank + other) for other in range(size)])
    for other, output in enumerate(outputs):
        equal(output, [10.0 * other + rank] * (other + 1))
    output = torch.empty(size)
    dist.all_to_all_single(output, torch.arange(float(size)) + 10 * rank)
    equal(output, [10.0 * other + rank for other in range(size)])
    rows = torch.full((sum(range(size)), 2), float(rank))
    output = torch.empty(rank * size, 2)
    dist.all_to_all_single(output, rows, [rank] * size, list(range(size)))
    equal(output[:, 0], [float(other) for other in range(size) for _ in range(rank)])


@check
def messages_in_any_order(rank: int, size: int) -> None:
    after, before = (rank + 1) % size, (rank - 1) % size
    first, second = torch.zeros(2), torch.zeros(1)
    # Both ranks of a pair receive before they send, and the messages' tags arrive in the other order.
    receiving = [dist.irecv(first, before, tag=1), dist.irecv(second, before, tag=2)]
    sending = [
        dist.isend(torch.full((1,), rank + 0.5), after, tag=2),
        dist.isend(torch.full((2,), float(rank)), after, tag=1),
    ]
    for work in (*receiving, *sending):
        assert work is not None
        work.wait()
    equal(first, [float(before)] * 2)
    equal(second, [before + 0.5])
    if rank == 0:
        dist.send(torch.arange(4)[::2], 1)
    elif rank == 1:
        received = torch.zeros(2, 2, dtype=torch.int64)[:, 0]
        dist.recv(received, 0)
        equal(received, [0, 2])


@check
def operations_of_one_group_keep_their_order(rank: int, size: int) -> None:
    tensor = torch.ones(1000)
    works = [dist.all_reduce(tensor, async_op=True) for _ in range(3)]
    dist.all_reduce(tensor)  # waits for those before
    assert all(work.is_completed() and work.is_success() for work in works)
    equal(tensor, [float(size**4)] * 1000)
    future = dist.all_reduce(torch.ones(1), async_op=True).get_future()
    equal(future.wait()[0], [float(size)])


@check
def objects(rank: int, size: int) -> None:
    found: list[object] = [None] * size
    dist.all_gather_object(found, {"rank": rank, "long": "x" * rank * 1000})
    assert found == [{"rank": other, "long": "x" * other * 1000} for other in range(size)]
    shared = ["of rank 1", 1] if rank == 1 else [None, None]
    dist.broadcast_object_list(shared, 1)
    assert shared == ["of rank 1", 1]


@check
def groups(rank: int, size: int) -> None:
    pair, last = dist.new_group([0, 1]), dist.new_group([size - 1])
    tensor = torch.ones(1)
    if rank < 2:
        dist.all_reduce(tensor, group=pair)
        equal(tensor, [2.0])
    if rank == size - 1:
        dist.all_reduce(tensor, group=last)
    dist.barrier()


@check
def coalesced_tensors(rank: int, size: int) -> None:
    group = dist.group.WORLD
    outputs = [torch.empty(size), torch.empty(2 * size)]
    group.allgather_into_tensor_coalesced(outputs, [torch.full((1,), float(rank)), torch.full((2,), -1.0)]).wait()
    equal(outputs[0], list(range(size)))
    equal(outputs[1], [-1.0] * 2 * size)


@check
def wrong_arguments(rank: int, size: int) -> None:
    group = dist.group.WORLD
    for call, message in (
        (lambda: group.allgather([[torch.empty(1)]], [torch.empty(1)]), "invalid list of 1 tensors: expected"),
        (lambda: group.all_gather_single(torch.empty(1), torch.empty(1)), "invalid output of 1 elements: expected"),
        (lambda: dist.recv(torch.empty(1)), "recv without src is not supported by the backend fmi"),
    ):
        try:
            call()
        except (ValueError, NotImplementedError) as error:
            assert message in str(error), error
        else:
            raise AssertionError(message)


@check
def a_time_limit_names_the_setting_that_torch_has(rank: int, size: int) -> None:
    group = dist.new_group(timeout=timedelta(seconds=0.3))
    if rank == 0:
        try:
            dist.barrier(group)
        except RuntimeError as error:
            assert "the timeout of this process group is over: pass a longer one to init_process" in str(error), error
        else:
            raise AssertionError("no error")
    dist.barrier()


@check
def training_gives_the_losses_of_gloo(rank: int, size: int) -> None:
    gloo = dist.new_group(backend="gloo")

    def losses(wrap: Callable[[torch.nn.Module], torch.nn.Module]) -> list[float]:
        torch.manual_seed(1)
        model = wrap(torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        found = []
        for step in range(5):
            generator = torch.Generator().manual_seed(100 * step + rank)
            x, y = torch.randn(8, 16, generator=generator), torch.randn(8, 4, generator=generator)
            loss = ((model(x) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    def sharded(model: torch.nn.Module) -> torch.nn.Module:
        fully_shard(model)
        return model

    expected = losses(lambda model: DistributedDataParallel(model, process_group=gloo))
    cpu = torch.device("cpu")
    for wrap in (DistributedDataParallel, lambda model: FullyShardedDataParallel(model, device_id=cpu), sharded):
        found = losses(wrap)
        assert all(abs(one - other) <= 1e-6 for one, other in zip(found, expected, strict=True)), (found, expected)


def main() -> None:
    torch.set_num_threads(1)
    register()
    dist.init_process_group("fmi")
    rank, size = dist.get_rank(), dist.get_world_size()
    errors = {}
    for name, run in CHECKS.items():
        try:
            run(rank, size)
        except Exception:  # noqa: BLE001 - reported by the test of that name
            errors[name] = traceback.format_exc()
        else:
            errors[name] = ""
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(errors))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
