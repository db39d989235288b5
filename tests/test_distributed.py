"""Collectives, and how processes meet and end. Run as a script, this file is one of those processes."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from compressl import distributed
from compressl.distributed import team
from compressl.errors import CompresslError, DataError, UsageError
from compressl.objectives import CSimCLRLoss, SimCLRLoss

RANKS, IMAGES = 2, 6
GONE = 9  # exit code of a process that vanishes
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
    results["averages"] = averages(rank)
    results["any"] = [distributed.any_rank(flag) for flag in (False, rank == 1, True)]
    results["from main"] = distributed.from_main(lambda: {"rank": rank, "weights": torch.arange(3)})
    with distributed.in_turn():
        time.sleep(0.2 * (1 - rank))
        results["turn"] = time.monotonic()
    dist.destroy_process_group()
    results["ends"] = {}
    for scenario in (well, both_wrong, one_wrong, a_bug, gone):
        torch.save(results, f"{folder}/{rank}.pt")
        results["ends"][scenario.__name__] = end(scenario, rank)
    torch.save(results, f"{folder}/{rank}.pt")


def averages(rank):
    """Gradients of four parameters: of both ranks in two dtypes, of one rank, of none; and scalars."""
    parameters = [torch.zeros(2, 3), torch.zeros(2, dtype=torch.float64), torch.zeros(1), torch.zeros(1)]
    for parameter in parameters:
        parameter.requires_grad_()
    parameters[0].grad = torch.arange(6.0).reshape(3, 2).T * (1 + rank)  # not contiguous
    parameters[1].grad = torch.full((2,), 1e-12 + rank, dtype=torch.float64)
    if rank == 1:
        parameters[2].grad = torch.ones(1)
    distributed.average_gradients(parameters)
    return [p.grad for p in parameters], distributed.average({"a": torch.tensor(1.0 + rank), "b": torch.tensor(5.0)})


def well(rank):
    return distributed.world_size()


def both_wrong(rank):
    raise DataError(f"Wrong on {rank}.", "Mend it.")


def one_wrong(rank):
    if rank == 1:
        raise DataError("Wrong on 1.", "Mend it.")
    x = torch.ones(2, requires_grad=True)
    y = x.view(2, 1).exp()
    y.register_hook(lambda gradient: distributed.local(distributed.gather(gradient)))
    y.sum().backward()  # the collective that fails is inside the backward pass


def a_bug(rank):
    if rank == 1:
        raise KeyError("forgotten")
    distributed.barrier()


def gone(rank):
    if rank == 1:
        os._exit(GONE)  # as when the system ends a process: nobody is told
    distributed.barrier()


def end(scenario, rank):
    """How a process leaves a scenario that torchrun's processes meet for."""
    try:
        with distributed.processes():
            return scenario(rank)
    except CompresslError as error:
        return type(error).__name__, str(error)
    except SystemExit as leaving:
        return "silent", leaving.code
    except KeyError:
        return "bug", ""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two Gloo processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun keeps one
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | meeting | {"WORLD_SIZE": str(RANKS), "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(RANKS)
    ]
    try:
        errors = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, GONE], errors
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
        assert "2 to 3 images" in gather
        assert "3 rows" in local


def test_gradients_are_averaged_and_absent_ones_stay_absent(ranks):
    for results in ranks:
        (first, second, third, fourth), scalars = results["averages"]
        torch.testing.assert_close(first, 1.5 * torch.arange(6.0).reshape(3, 2).T)
        torch.testing.assert_close(second, torch.full((2,), 0.5 + 1e-12, dtype=torch.float64), rtol=1e-14, atol=0)
        assert third.item() == 0.5
        assert fourth is None
        assert (scalars["a"].item(), scalars["b"].item()) == (1.5, 5.0)


def test_decisions_are_those_of_all_and_words_those_of_the_main_process(ranks):
    for results in ranks:
        assert results["any"] == [False, True, True]
        assert results["from main"]["rank"] == 0
        assert results["from main"]["weights"].tolist() == [0, 1, 2]


def test_the_first_on_a_machine_is_done_before_the_others_begin(ranks):
    assert ranks[0]["turn"] < ranks[1]["turn"]


def test_processes_meet_again_and_again(ranks):
    assert [results["ends"]["well"] for results in ranks] == [2, 2]


def test_what_both_find_wrong_is_said_by_one(ranks):
    ends = [results["ends"]["both_wrong"] for results in ranks]
    assert ("silent", 3) in ends
    assert {("DataError", f"Wrong on {rank}. Mend it.") for rank in range(RANKS)} & set(ends)


def test_an_error_of_one_ends_the_other_inside_its_backward_pass(ranks):
    assert ranks[1]["ends"]["one_wrong"] == ("DataError", "Wrong on 1. Mend it.")
    assert ranks[0]["ends"]["one_wrong"] == ("silent", 3)


def test_a_bug_of_one_is_shown_there_and_ends_the_other(ranks):
    assert [results["ends"]["a_bug"] for results in ranks] == [("silent", 1), ("bug", "")]


def test_a_process_that_vanishes_is_noticed(ranks):
    kind, words = ranks[0]["ends"]["gone"]
    assert kind == "ResourceError"
    assert "Another process of this training is gone" in words


@pytest.mark.parametrize("ends", ["hangs", "fails"])
def test_an_error_does_not_wait_for_the_end_of_the_group(monkeypatch, ends):
    called, never = threading.Event(), threading.Event()

    def destroy():
        called.set()
        if ends == "fails":
            raise RuntimeError("no group")
        never.wait()

    monkeypatch.setattr(team, "PARTING", timedelta(milliseconds=50))
    monkeypatch.setattr(dist, "destroy_process_group", destroy)
    team._part()
    assert called.is_set()
    never.set()


@pytest.mark.parametrize("environment", [{}, {"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}])
def test_processes_that_do_not_meet_are_a_sentence(monkeypatch, environment):
    monkeypatch.setattr(team, "MEETING", timedelta(seconds=1))
    for name, value in {"WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="The 2 processes of WORLD_SIZE did not find one another"), team.processes():
        pass


def test_identity_without_a_process_group():
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(x) is x
    assert distributed.mean(x) is x
    assert torch.equal(distributed.local(x), x)
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = gradient = torch.ones(1)
    distributed.average_gradients([parameter])
    assert parameter.grad is gradient
    assert [distributed.any_rank(flag) for flag in (True, False)] == [True, False]


if __name__ == "__main__":
    torch.set_num_threads(1)
    worker(int(sys.argv[1]), sys.argv[2])
