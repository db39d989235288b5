"""Collectives, and the promise that N processes train as one. Run as a script, this file is one of those processes."""

import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from compressl import distributed
from compressl.errors import UsageError
from compressl.objectives import CSimCLRLoss, SimCLRLoss

RANKS, IMAGES = 2, 6
OBJECTIVES = {
    "simclr": SimCLRLoss(),
    "c-simclr": CSimCLRLoss(kappa_e=100.0),
    "c-simclr analytic": CSimCLRLoss(kappa_e=100.0, analytic=True),
}


def losses_and_gradients(gather, share):
    """Each objective's loss on the global batch and its parameter gradients on this process's share of it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8)).double()
    views = torch.randn(2, IMAGES, 5, dtype=torch.float64)
    results = {}
    for name, objective in OBJECTIVES.items():
        a, b = (gather(model(share(view))) for view in views)
        noise = [] if name == "simclr" else [torch.Generator().manual_seed(7)]
        loss, _ = objective(a, b, *noise)
        results[name] = [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]
    return results


def worker(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", timedelta(seconds=60), world_size=RANKS, rank=rank)
    results = losses_and_gradients(distributed.gather, distributed.local)
    for values in results.values():  # what data-parallel training does to gradients
        for gradient in values[1:]:
            dist.all_reduce(gradient)
            gradient /= RANKS
    results["who"] = (distributed.world_size(), distributed.rank(), distributed.is_main())

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64) + 10 * rank
    x.requires_grad_()
    gathered = distributed.gather(x.T).T  # not contiguous
    weights = torch.arange(1.0, 1 + gathered.numel(), dtype=torch.float64).reshape(gathered.shape) * (1 + rank)
    results["gathered"], results["gather gradient"] = (
        gathered.detach(),
        torch.autograd.grad((gathered * weights).sum(), x)[0],
    )
    y = torch.tensor(float(rank), dtype=torch.float64, requires_grad=True)
    average = distributed.mean(y)
    results["mean"] = average.detach()
    results["mean gradient"] = torch.autograd.grad((rank + 1) * average, y)[0]
    results["refusals"] = []
    for call in (lambda: distributed.gather(torch.zeros(2 + rank, 3)), lambda: distributed.local(torch.zeros(3))):
        try:
            call()
        except UsageError as refusal:
            results["refusals"].append(str(refusal))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two Gloo processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        errors = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * RANKS, errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_train_as_one(ranks, name):
    alone = losses_and_gradients(lambda x: x, lambda x: x)[name]
    half = losses_and_gradients(lambda x: x, lambda x: x[: IMAGES // RANKS])[name]
    assert (half[1] - alone[1]).norm() > 1e-3 * alone[1].norm()  # the other half of the batch matters
    for results in ranks:
        for ours, theirs in zip(results[name], alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_ranks_know_themselves(ranks):
    assert [results["who"] for results in ranks] == [(2, 0, True), (2, 1, False)]


def test_gather_keeps_rank_order_and_sums_gradients(ranks):
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    expected = torch.cat([first, first + 10], dim=1)  # rows of the transposes
    weights = torch.arange(1.0, 9.0, dtype=torch.float64).reshape(2, 4)
    for rank, results in enumerate(ranks):
        torch.testing.assert_close(results["gathered"], expected)
        # ranks weighted the sum by 1 and 2: reduce-scatter(sum) gives 3 weights
        torch.testing.assert_close(results["gather gradient"], 3 * weights[:, 2 * rank : 2 * rank + 2])


def test_mean_is_over_ranks_in_both_directions(ranks):
    for results in ranks:
        assert results["mean"].item() == 0.5
        assert results["mean gradient"].item() == 1.5


def test_uneven_shares_are_refused_on_every_rank(ranks):
    for results in ranks:
        gather, local = results["refusals"]
        assert "2, 3 images" in gather
        assert "3 rows" in local


def test_identity_without_a_process_group():
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(x) is x
    assert distributed.mean(x) is x
    assert torch.equal(distributed.local(x), x)
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    worker(int(sys.argv[1]), sys.argv[2])
