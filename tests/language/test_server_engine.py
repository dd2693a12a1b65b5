"""ServerEngine against servers on loopback: our own, in this process and in one that is killed, and llama.cpp's if it is there."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.errors import DataError, EngineError, InputError
from dodona.language import (
    CharTokenizer,
    HFPolicy,
    PolicyServer,
    Sampling,
    ServerEngine,
    TaskCollector,
    TorchEngine,
    audit_rollout,
    compare_rollouts,
    forced,
    load_engine,
    sampling_logp,
    save_checkpoint,
    score_tokens,
)
from dodona.language.rollouts import Engine
from dodona.policies import TransformerPolicy, to_llama

TOKENIZER = CharTokenizer("ab12+-")
V = len(TOKENIZER)
PROMPTS = [[1, 3], [1, 4, 5, 6], [1, 7]]
OPTIONS = {"num_samples": 6, "max_new_tokens": 8, "seed": 1}
TELLING = {"retries": 0, "eos_id": 2}


def small(seed=0):
    policy = TransformerPolicy(V, size=(12, 2, 2), context=48, seed=seed).double()
    with torch.no_grad():
        policy.trunk.embedding.weight.mul_(30.0)
    return policy


def tokens(rollouts):
    return [r.token_ids.tolist() for r in rollouts]


def started(folder, port=0):
    """A server in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dodona.language.serve", str(folder), "--port", str(port), "--dtype", "float64"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("serving policy at http://127.0.0.1:"), line
    return process, line.split()[-1]


def stopped(process):
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "policy"
    save_checkpoint(small(), folder)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    engine, read = load_engine(folder, dtype=torch.float64)
    with serving(PolicyServer(engine, name="policy", read=read)) as url:
        yield url


@contextlib.contextmanager
def serving(server):
    """A server in this process, whose replies a test can change."""
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.close()
        thread.join()


class Changed(PolicyServer):
    """Replies of ``complete`` go through ``change(reply, body)``."""

    def __init__(self, change, *, engine=None, **given):
        super().__init__(engine or TorchEngine(small(), eos_id=2), **given)
        self.change, self.asked = change, 0

    def complete(self, body):
        self.asked += 1
        reply = self.change(super().complete(body), body)
        if isinstance(reply, Exception):
            raise reply
        return reply


# a real server ------------------------------------------------------------------------------------


def test_a_probe_tells_what_a_server_can_do(url):
    engine = ServerEngine(url, tokenizer=TOKENIZER)
    assert isinstance(engine, Engine)
    told = engine.probe([1, 3], num_samples=7)
    assert told.model == "policy" and told.several == 7 and told.law == "drawn"
    assert told.token_ids and told.logprobs and told.stops and not told.transfer
    assert told.reload == "/update_weights_from_disk"
    assert not told.stop_texts  # it knows no text of this model
    assert "missing weights from device to device" in str(told) and len(told.missing) == 2


def test_answers_are_of_the_law_of_the_weights(url):
    """Log-probabilities are the policy's, and tokens come as often as they should: within 4.5 deviations."""
    policy, engine = small(), ServerEngine(url, **TELLING)
    assert audit_rollout(engine, policy, PROMPTS, version=0).max_abs < 1e-5
    warm = Sampling(temperature=1.7)
    assert audit_rollout(engine, policy, PROMPTS, sampling=warm).max_abs < 1e-5
    n = 2000
    assert engine.probe([1, 3], num_samples=500).several == 500
    firsts = np.array([r.token_ids[0] for r in engine.generate([[1, 3]], num_samples=n, max_new_tokens=1, seed=0)])  # fmt: skip
    law = policy.distribution({"prompt": torch.tensor([[1, 3]])}).probs.detach().numpy()[0]
    seen = np.bincount(firsts, minlength=V) / n
    assert (np.abs(seen - law) <= 4.5 * np.sqrt(law * (1 - law) / n) + 1e-9).all()


def test_answers_depend_on_their_keys(url):
    engine = ServerEngine(url, version=5, concurrency=3, **TELLING)
    answers = engine.generate(PROMPTS, **OPTIONS)
    again = engine.generate(PROMPTS, **OPTIONS)
    assert tokens(again) == tokens(answers) and len(set(map(tuple, tokens(answers)))) > 5
    assert tokens(engine.generate(PROMPTS, **OPTIONS | {"seed": 2})) != tokens(answers)
    later = engine.generate(PROMPTS[1:], prompt_index=[1, 2], **OPTIONS)
    assert tokens(later) == tokens(answers[6:])
    assert [(r.prompt_index, r.sample_index) for r in answers] == [(p, s) for p in range(3) for s in range(6)]  # fmt: skip
    assert all((r.version == 5).all() for r in answers)
    assert {r.finish for r in answers} == {"eos", "length"}
    assert all((r.token_ids[-1] == 2) == (r.finish == "eos") for r in answers)
    assert engine.generate([], **OPTIONS) == []


def test_what_the_server_does_not_say_comes_from_the_policy(url):
    policy, warm = small(), Sampling(temperature=0.6)
    engine = ServerEngine(url, policy=policy, **TELLING)
    for r in engine.generate(PROMPTS, sampling=warm, **OPTIONS):
        np.testing.assert_allclose(r.logp, score_tokens(policy, [r], temperature=0.6)[0], atol=1e-5)
        np.testing.assert_allclose(r.logp_raw, score_tokens(policy, [r])[0], atol=1e-5)
        obs = {"prompt": torch.from_numpy(r.prompt_ids)[None]}
        ids = torch.from_numpy(r.token_ids).long()[None]
        np.testing.assert_allclose(r.entropy, policy.entropy(obs, ids)[0], atol=1e-9)
    alone = ServerEngine(url, **TELLING)
    assert alone.generate(PROMPTS, sampling=warm, **OPTIONS)[0].logp_raw is None
    plain = alone.generate(PROMPTS, **OPTIONS)[0]
    assert np.array_equal(plain.logp_raw, plain.logp) and plain.entropy is None
    greedy = Sampling(temperature=0.0)
    assert np.isnan(alone.generate(PROMPTS, sampling=greedy, **OPTIONS)[0].logp).all()
    known = engine.generate(PROMPTS, sampling=greedy, **OPTIONS)[0]
    np.testing.assert_allclose(known.logp, known.logp_raw)


def test_the_law_behind_truncation_is_told(url):
    policy, sampling = small(), Sampling(top_k=3, temperature=1.5)
    for r in ServerEngine(url, **TELLING).generate(PROMPTS, sampling=sampling, **OPTIONS):
        obs = {"prompt": torch.from_numpy(r.prompt_ids)[None]}
        ids = torch.from_numpy(r.token_ids).long()[None]
        law = sampling_logp(policy.distribution(obs, ids).logits[0].detach(), sampling)
        np.testing.assert_allclose(r.logp, law.gather(1, ids[0][:, None])[:, 0], atol=1e-5)


def test_cut_answers_go_on(url):
    policy, engine = small(), ServerEngine(url, **TELLING)
    cut = [r for r in engine.generate(PROMPTS, **OPTIONS | {"max_new_tokens": 3}) if r.finish == "length"]  # fmt: skip
    engine.version = 1
    longer = engine.generate([], max_new_tokens=5, seed=9, resume=cut)
    for before, after in zip(cut, longer, strict=True):
        assert after.token_ids[:3].tolist() == before.token_ids.tolist()
        assert after.seed == 1 and after.sample_index == before.sample_index
        assert after.version.tolist() == [0] * 3 + [1] * (len(after.token_ids) - 3)
    assert compare_rollouts(longer, policy).max_abs < 1e-5
    ended = replace(longer[0], finish="eos")
    with pytest.raises(InputError, match=r"resume\[0\] has ended by 'eos'"):
        engine.generate([], max_new_tokens=5, seed=9, resume=[ended])


def test_stops_end_answers_where_they_complete(url):
    """Decided here, whether the server stopped or not; the server at hand knows ids and no texts."""
    engine = ServerEngine(url, tokenizer=TOKENIZER, retries=0)
    stop = Sampling(stop=("a1", "b"), stop_ids=(7,))
    answers = engine.generate(PROMPTS, sampling=stop, **OPTIONS | {"num_samples": 30})
    free = engine.generate(PROMPTS, **OPTIONS | {"num_samples": 30})
    assert {r.finish for r in answers} == {"eos", "stop", "length"}
    for r, f in zip(answers, free, strict=True):
        text, whole = (TOKENIZER.decode(x.token_ids.tolist()) for x in (r, f))
        if r.finish == "stop":
            assert r.stop_id in (0, 1, 2)
            assert (r.token_ids[-1] == 7) if r.stop_id == 2 else text.endswith(stop.stop[r.stop_id])
        else:
            assert not any(s in text for s in stop.stop) and 7 not in r.token_ids
        assert not any(s in r.text for s in stop.stop)
        assert whole.startswith(text)


def test_weights_reach_the_server_through_a_folder(folder, tmp_path):
    engine, read = load_engine(folder, dtype=torch.float64)
    with serving(PolicyServer(engine, read=read)) as url:
        policy, other = small(), small(seed=1)
        engine = ServerEngine(url, policy=policy, weights=tmp_path, **TELLING)
        assert audit_rollout(engine, policy, PROMPTS).max_abs < 1e-5
        engine.sync(other.named_parameters(), version=3)
        assert audit_rollout(engine, other, PROMPTS, version=3).max_abs < 1e-5
        with pytest.raises(InputError, match="differ by"):
            audit_rollout(engine, policy, PROMPTS)
        engine.sync(policy.named_parameters(), version=4)
        assert [p.name for p in tmp_path.iterdir()] == ["version-4"]
        assert audit_rollout(engine, policy, PROMPTS).max_abs < 1e-5
        half = dict(list(policy.named_parameters())[1:])
        with pytest.raises(InputError, match="1 weights are missing"):
            engine.sync(half.items(), version=5)
        assert engine.version == 4


def test_a_server_that_dies_costs_no_finished_answer(folder, tmp_path):
    """Killed in the middle of a call; when it is back, the same call asks for the rest alone and gives what it would have."""
    options = {"num_samples": 12, "max_new_tokens": 25, "seed": 3}
    process, url = started(folder)
    port = int(url.rsplit(":", 1)[1])
    engine = ServerEngine(
        url, eos_id=2, concurrency=1, retries=1, wait=0.01, interrupted=tmp_path / "kept.jsonl"
    )
    engine.probe([1, 3], num_samples=1)
    error: list[EngineError] = []

    def call():
        try:
            engine.generate(PROMPTS, **options)
        except EngineError as caught:
            error.append(caught)

    thread = threading.Thread(target=call)
    thread.start()
    while len(engine._kept) < 3:
        time.sleep(0.001)
    stopped(process)
    thread.join()
    finished = error[0].finished
    assert 3 <= len(finished) < 36
    assert f"{len(finished)} answers had been finished and are kept" in str(error[0])
    process, url = started(folder, port)
    try:
        fresh = ServerEngine(url, eos_id=2)
        fresh.probe([1, 3], num_samples=1)
        whole = tokens(fresh.generate(PROMPTS, **options))
        later = ServerEngine(url, eos_id=2, interrupted=tmp_path / "kept.jsonl")
        told = ServerEngine(url, eos_id=2)
        told.keep(finished)
        for again in (engine, later, told):  # this one, one of another process, one that is told
            again.probe([1, 3], num_samples=1)
            asked = counted(again.server)
            answers = again.generate(PROMPTS, **options)
            assert tokens(answers) == whole and len(asked) == 36 - len(finished)
            assert all(r.logp.dtype == np.float32 for r in answers)
        assert not list(tmp_path.iterdir())
        assert audit_rollout(engine, small(), PROMPTS).max_abs < 1e-5
    finally:
        stopped(process)


def counted(server):
    """A list that grows with every request for answers."""
    asked, complete = [], server.complete

    def one_more(*args, **body):
        asked.append(body)
        return complete(*args, **body)

    server.complete = one_more
    return asked


# servers in this process ----------------------------------------------------------------------------


def test_failures_that_pass_are_tried_again():
    failing = iter([RuntimeError("out of memory"), RuntimeError("still")])
    with serving(Changed(lambda reply, body: next(failing, reply))) as url:
        answers = ServerEngine(url, eos_id=2, retries=2, wait=0.001).generate(PROMPTS, **OPTIONS)
    direct = Changed(lambda reply, body: reply)
    with serving(direct) as url:
        assert tokens(ServerEngine(url, eos_id=2).generate(PROMPTS, **OPTIONS)) == tokens(answers)


def test_a_server_that_stays_dead_is_an_error_with_the_reason():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EngineError, match=r"/openapi.json failed 2 times, at last with .*refused"):
        ServerEngine(url, retries=1, wait=0.001).generate(PROMPTS, **OPTIONS)
    broken = Changed(lambda reply, body: RuntimeError("no memory"))
    with serving(broken) as url, pytest.raises(EngineError, match="failed 3 times, .* status 500: .*no memory"):  # fmt: skip
        ServerEngine(url, eos_id=2, retries=2, wait=0.001).generate(PROMPTS, **OPTIONS)


def test_a_refused_request_is_not_tried_again():
    server = Changed(lambda reply, body: reply)
    with serving(server) as url:
        engine = ServerEngine(url, wait=30.0, **TELLING | {"retries": 3})
        engine.probe([1, 3])
        before = server.asked
        with pytest.raises(InputError, match="refused the request with 400: .*the context holds 48"):  # fmt: skip
            engine.generate(PROMPTS[:1], num_samples=1, max_new_tokens=80, seed=0)
        assert server.asked == before + 1


def without(*names):
    """Replies of a server that does not say these."""

    def change(reply, body):
        for choice in reply["choices"]:
            for name in names:
                if name == "token_logprobs" and choice["logprobs"]:
                    choice["logprobs"] = None
                choice.pop(name, None)
        return reply

    return change


def test_a_server_of_text_alone_is_refused():
    with serving(Changed(without("token_ids", "logprobs"))) as url:
        engine = ServerEngine(url, policy=small(), **TELLING)
        with pytest.raises(InputError, match="the server of policy returns text and no token ids"):
            engine.generate(PROMPTS, **OPTIONS)
        assert "token ids: can not be used" in engine.abilities.missing


def test_a_server_without_log_probabilities_needs_a_policy():
    with serving(Changed(without("token_logprobs"))) as url:
        with pytest.raises(InputError, match=r"no log-probabilities under temperature=1.0 .* give policy="):  # fmt: skip
            ServerEngine(url, **TELLING).generate(PROMPTS, **OPTIONS)
        policy = small()
        for r in ServerEngine(url, policy=policy, **TELLING).generate(PROMPTS, **OPTIONS):
            np.testing.assert_allclose(r.logp, score_tokens(policy, [r])[0], atol=1e-6)
        truncated = ServerEngine(url, **TELLING).generate(PROMPTS, sampling=Sampling(top_k=2), **OPTIONS)  # fmt: skip
        assert all(np.isnan(r.logp).all() and r.logp_raw is None for r in truncated)


def as_llama_cpp(reply, body):
    """Ids beside every log-probability and nowhere else."""
    for choice in reply["choices"]:
        ids, logp = choice.pop("token_ids"), choice["logprobs"]["token_logprobs"]
        choice["logprobs"] = {
            "content": [{"id": i, "logprob": x} for i, x in zip(ids, logp, strict=True)]
        }
    return reply


@pytest.mark.parametrize("change", [as_llama_cpp, without("token_ids")])
def test_token_ids_are_found_where_servers_put_them(change):
    with serving(Changed(change)) as url:
        engine = ServerEngine(url, **TELLING)
        assert audit_rollout(engine, small(), PROMPTS).max_abs < 1e-5
        assert engine.abilities.token_ids and engine.abilities.law == "drawn"


def of_the_model(power):
    """Log-probabilities of the model's own law at the request's temperature to a power, whatever truncation there was."""
    policy = small()

    def change(reply, body):
        temperature = max(body["temperature"], 1e-3) ** power
        for choice in reply["choices"]:
            row = forced(body["prompt"], choice["token_ids"])
            logp = score_tokens(policy, [row], temperature=temperature)[0]
            choice["logprobs"]["token_logprobs"] = logp.tolist()
        return reply

    return change


def test_log_probabilities_of_another_law_are_recognised():
    """Raw ones are right at temperature 1 and replaced elsewhere; ones behind the temperature are wrong only of top_k."""
    warm, cut = Sampling(temperature=1.7), Sampling(top_k=2)
    with serving(Changed(of_the_model(0))) as url:
        engine = ServerEngine(url, **TELLING)
        assert engine.probe([1, 3]).law == "raw"
        assert audit_rollout(engine, small(), PROMPTS).max_abs < 1e-5
        with pytest.raises(InputError, match=r"under temperature=1.7 \(law: raw\): give policy="):
            engine.generate(PROMPTS, sampling=warm, **OPTIONS)
        assert all(np.isnan(r.logp).all() for r in engine.generate(PROMPTS, sampling=cut, **OPTIONS))  # fmt: skip
        scored = ServerEngine(url, policy=small(), **TELLING)
        assert audit_rollout(scored, small(), PROMPTS, sampling=warm).max_abs < 1e-5
        greedy = engine.generate(PROMPTS, sampling=Sampling(temperature=0.0), **OPTIONS)
        assert compare_rollouts(greedy, small()).max_abs < 1e-5
    with serving(Changed(of_the_model(1))) as url:
        engine = ServerEngine(url, **TELLING)
        assert engine.probe([1, 3]).law == "tempered"
        assert audit_rollout(engine, small(), PROMPTS, sampling=warm).max_abs < 1e-5
        assert np.isnan(engine.generate(PROMPTS, sampling=cut, **OPTIONS)[0].logp).all()


def test_an_audit_catches_what_a_probe_can_not_see():
    """A server whose weights are of another version says true log-probabilities of another law."""
    server = Changed(lambda reply, body: reply, engine=TorchEngine(small(seed=1), eos_id=2))
    with serving(server) as url, pytest.raises(InputError, match="nats a token .* limit is 0.05"):
        audit_rollout(ServerEngine(url, **TELLING), small(), PROMPTS)


@pytest.mark.parametrize("most", [1, 4])
def test_a_server_of_few_answers_at_once_is_asked_more_often(most):
    def change(reply, body):
        return reply if body["n"] <= most else InputError(f"n must be at most {most}")

    server = Changed(change)
    with serving(server) as url:
        engine = ServerEngine(url, **TELLING)
        answers = engine.generate(PROMPTS, **OPTIONS)
        assert engine.abilities.several == most and len(answers) == 18
        assert [(r.prompt_index, r.sample_index) for r in answers] == [(p, s) for p in range(3) for s in range(6)]  # fmt: skip
        assert audit_rollout(engine, small(), PROMPTS).max_abs < 1e-5


def drops_eos(reply, body):
    for choice in reply["choices"]:
        if choice["token_ids"][-1] == 2:
            choice["token_ids"].pop()
            choice["logprobs"]["token_logprobs"].pop()
    return reply


def test_an_end_token_that_is_not_told_is_put_back():
    """Counts of usage give it away; its log-probability is the policy's."""
    with serving(Changed(drops_eos)) as url:
        policy = small()
        answers = ServerEngine(url, policy=policy, **TELLING).generate(PROMPTS, **OPTIONS)
        ended = [r for r in answers if r.finish == "eos"]
        assert ended and all(r.token_ids[-1] == 2 for r in ended)
        assert compare_rollouts(answers, policy).max_abs < 1e-5
        with pytest.raises(InputError, match="log-probability of an end token: give policy="):
            ServerEngine(url, **TELLING).generate(PROMPTS, **OPTIONS)


def test_tokens_that_get_lost_are_noticed():
    def change(reply, body):
        if body["max_tokens"] > 2:
            reply["choices"][0]["token_ids"] = reply["choices"][0]["token_ids"][1:]
        return reply

    def fewer(reply, body):
        if body["max_tokens"] > 2:
            reply["choices"].pop()
            del reply["usage"]
        return reply

    with serving(Changed(change)) as url, pytest.raises(InputError, match="the server drew .* tokens and told"):  # fmt: skip
        ServerEngine(url, **TELLING).generate(PROMPTS, **OPTIONS)
    with serving(Changed(fewer)) as url, pytest.raises(InputError, match="gave 5 answers where 6 were asked for"):  # fmt: skip
        ServerEngine(url, **TELLING).generate(PROMPTS, **OPTIONS)


def test_an_end_of_the_servers_own_is_an_end():
    """Its model ends at token 7, which nobody named."""
    server = Changed(lambda reply, body: reply, engine=TorchEngine(small(), eos_id=7))
    with serving(server) as url:
        answers = ServerEngine(url, retries=0).generate(PROMPTS, **OPTIONS)
        assert {r.finish for r in answers} == {"eos", "length"}
        assert all((r.token_ids[-1] == 7) == (r.finish == "eos") for r in answers)


def test_weights_that_can_not_be_brought(tmp_path):
    policy = small()
    server = Changed(lambda reply, body: reply)
    with serving(server) as url:
        for given in ({}, {"policy": policy}, {"weights": tmp_path}):
            with pytest.raises(InputError, match="can not bring weights to its server: give policy="):  # fmt: skip
                ServerEngine(url, **given).sync(policy.named_parameters(), version=1)
        engine = ServerEngine(url, policy=policy, weights=tmp_path, **TELLING)
        with pytest.raises(InputError, match="refused the request with 400: .*without a way to read"):  # fmt: skip
            engine.sync(policy.named_parameters(), version=1)
        server.posts = lambda: {"/v1/completions": server.complete}
        with pytest.raises(InputError, match="has none of /update_weights_from_disk, /collective_rpc"):  # fmt: skip
            engine.sync(policy.named_parameters(), version=1)
        assert engine.version == 0
        brought = []
        own = ServerEngine(url, policy=policy, deliver=lambda p, v: brought.append((p, v)))
        own.sync(small(seed=1).named_parameters(), version=2)
        assert own.version == 2 and brought[0][0] is own.policy and brought[0][1] == 2
        told = []
        server.posts = lambda: {
            "/collective_rpc": lambda body: told.append(body) or {"results": [None]},
            "/reset_prefix_cache": lambda body: told.append("forget") or {},
        }
        engine.sync(policy.named_parameters(), version=1)  # as vLLM is told
        assert told[0]["method"] == "reload_weights" and told[1] == "forget"
        assert told[0]["kwargs"]["weights_path"] == str(tmp_path / "version-1")
        server.posts = lambda: {
            "/v1/completions": server.complete,
            "/update_weights_from_disk": lambda body: {"success": False, "message": "no room"},
        }
        with pytest.raises(InputError, match="did not take the weights in .*: no room"):
            engine.sync(policy.named_parameters(), version=2)


def test_a_collector_trains_on_a_server(tmp_path):
    """Prompts of a task, answers over HTTP, the audit before the first batch, weights after every one."""
    from dodona.language.tasks import Arithmetic

    task = Arithmetic()
    tokenizer = CharTokenizer(task.alphabet)
    policy = TransformerPolicy(len(tokenizer), size=(12, 2, 2), context=48)
    engine = TorchEngine(policy, tokenizer=tokenizer)
    server = PolicyServer(engine, read=lambda f: load_engine(f)[0].policy.named_parameters())
    with serving(server) as url:
        collector = TaskCollector(
            ServerEngine(url, tokenizer=tokenizer, policy=policy, weights=tmp_path), task,
            tokenizer=tokenizer, num_prompts=3, group_size=2, max_new_tokens=4,
        )  # fmt: skip
        batch = collector.collect(policy)
        assert len(batch) == 6 and torch.isfinite(batch.logp_old).all()
        with torch.no_grad():
            policy.trunk.embedding.weight.mul_(3.0)
        batch = collector.collect(policy)
        logp = policy.log_prob(batch.obs, batch.actions).detach()
        assert (logp - batch.logp_old)[batch.mask].abs().max() < 1e-4
        assert engine.version == 1


# the server itself ----------------------------------------------------------------------------------


def reply_to(url, path, body=None):
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data)) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["error"]["message"]


def test_a_server_answers_what_its_engine_answers(url):
    body = {"prompt": [1, 3], "n": 3, "max_tokens": 6, "seed": 4, "logprobs": 1, "stop_token_ids": [2]}  # fmt: skip
    status, reply = reply_to(url, "/v1/completions", body)
    direct = TorchEngine(small()).generate(
        [[1, 3]], num_samples=3, max_new_tokens=6, seed=4, sampling=Sampling(stop_ids=(2,))
    )
    assert status == 200 and [c["token_ids"] for c in reply["choices"]] == tokens(direct)
    for choice, r in zip(reply["choices"], direct, strict=True):
        np.testing.assert_allclose(choice["logprobs"]["token_logprobs"], r.logp, atol=1e-12)
        assert choice["logprobs"]["tokens"][0] == f"token_id:{r.token_ids[0]}"
        assert choice["finish_reason"] == ("stop" if r.finish == "stop" else "length")
    assert reply["usage"]["completion_tokens"] == sum(map(len, tokens(direct)))
    assert reply_to(url, "/health") == (200, {"version": 0})
    _, bare = reply_to(url, "/v1/completions", {"prompt": [1, 3]})
    assert bare["choices"][0]["logprobs"] is None and len(bare["choices"][0]["token_ids"]) <= 16


@pytest.mark.parametrize(
    "path, body, status, message",
    [
        ("/nowhere", None, 404, "nothing stands at /nowhere"),
        ("/nowhere", {}, 404, "nothing answers at /nowhere"),
        ("/v1/completions", b"{", 400, "Expecting"),
        ("/v1/completions", [1], 400, "no JSON object"),
        ("/v1/completions", {"prompt": "text"}, 400, "a list of token ids, got text"),
        ("/v1/completions", {"prompt": [1, 99]}, 400, "token id 99"),
        ("/v1/completions", {"prompt": [1], "max_tokens": 100}, 400, "the context holds 48"),
        ("/v1/completions", {"prompt": [1], "temperature": -1}, 400, "temperature must be in"),
        ("/update_weights_from_disk", {}, 400, "model_path is missing"),
        ("/update_weights_from_disk", {"model_path": "/nowhere"}, 400, "no config.json"),
    ],
)
def test_a_server_says_what_is_wrong_with_a_request(url, path, body, status, message):
    got, text = reply_to(url, path, body)
    assert got == status and message in text


def test_a_server_reads_text_where_it_knows_a_tokenizer():
    engine = TorchEngine(small(), tokenizer=TOKENIZER)
    with serving(PolicyServer(engine)) as url:
        _, reply = reply_to(url, "/v1/completions", {"prompt": "a1", "stop": "b", "max_tokens": 20, "n": 9})  # fmt: skip
        assert any(c["finish_reason"] == "stop" for c in reply["choices"])
        assert not any("b" in c["text"] for c in reply["choices"])
        told = ServerEngine(url, tokenizer=TOKENIZER).probe([1, 3])
        assert told.stop_texts and told.missing == ("weights from a folder: give deliver=", "weights from device to device") or told.reload  # fmt: skip


def test_checkpoints_of_other_kinds(tmp_path):
    with pytest.raises(DataError, match="no config.json with safetensors"):
        load_engine(tmp_path)
    with pytest.raises(InputError, match="Linear has no save"):
        save_checkpoint(torch.nn.Linear(1, 1), tmp_path)
    policy = small()
    save_checkpoint(policy, tmp_path)
    engine, read = load_engine(tmp_path, dtype=torch.float64)
    assert tokens(engine.generate(PROMPTS, **OPTIONS)) == tokens(TorchEngine(policy).generate(PROMPTS, **OPTIONS))  # fmt: skip
    for (name, x), (theirs, y) in zip(read(str(tmp_path)), policy.named_parameters(), strict=True):
        assert name == theirs and torch.equal(x, y)


def test_models_of_transformers_are_served_too(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=48, bos_token_id=1, eos_token_id=2)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = HFPolicy(transformers.GPT2LMHeadModel(config))
    save_checkpoint(policy, tmp_path / "model")
    engine, read = load_engine(tmp_path / "model")
    with serving(PolicyServer(engine, read=read)) as url:
        client = ServerEngine(url, policy=policy, weights=tmp_path / "weights", **TELLING)
        assert audit_rollout(client, policy, PROMPTS).max_abs < 1e-4
        with torch.no_grad():
            policy.model.lm_head.weight.mul_(9.0)
        client.sync(policy.named_parameters(), version=1)
        assert audit_rollout(client, policy, PROMPTS, version=1).max_abs < 1e-4


def test_what_an_engine_refuses(url, tmp_path):
    (tmp_path / "kept.jsonl").write_text('{"seed": 1}')
    with pytest.raises(DataError, match=r"kept.jsonl, line 1 is no finished answer \(KeyError"):
        ServerEngine(url, interrupted=tmp_path / "kept.jsonl")
    with pytest.raises(InputError, match="url='ftp://x' is no http or https address"):
        ServerEngine("ftp://x")
    engine = ServerEngine(url + "/v1", **TELLING)  # as OpenAI's clients write it
    with pytest.raises(InputError, match="prompt 1 is empty"):
        engine.generate([[1], []], **OPTIONS)
    with pytest.raises(InputError, match="prompt_index has 1 different numbers for 3 prompts"):
        engine.generate(PROMPTS, prompt_index=[0, 0, 0], **OPTIONS)
    with pytest.raises(InputError, match="needs a tokenizer"):
        engine.generate(PROMPTS, sampling=Sampling(stop=("a",)), **OPTIONS)
    assert len(engine.generate(PROMPTS, **OPTIONS)) == 18


# llama.cpp -------------------------------------------------------------------------------------------


def write_gguf(policy, path):
    """The weights of a transformer as llama.cpp reads them: a Llama whose pairs of positions lie side by side."""
    import gguf

    config, tensors = to_llama(policy)
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]  # fmt: skip
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("llama")
    symbols = ["<pad>", "<s>", "</s>", *TOKENIZER.alphabet]
    writer.add_token_list(symbols)
    writer.add_token_scores([0.0] * len(symbols))
    writer.add_token_types([3, 3, 3] + [1] * len(TOKENIZER.alphabet))  # control, then normal
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, x in tensors.items():
        if name == "lm_head.weight":
            continue
        stem = name.removesuffix(".weight")
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            x = x.view(heads, 2, size // 2, -1).transpose(1, 2).reshape(x.shape)
        if stem in names:
            there = names[stem]
        else:
            _, _, layer, inner = stem.split(".", 3)
            there = f"blk.{layer}.{names[inner]}"
        writer.add_tensor(f"{there}.weight", x.detach().float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


LLAMA = os.environ.get("DODONA_LLAMA_SERVER") or shutil.which("llama-server")


@pytest.mark.skipif(
    not LLAMA or importlib.util.find_spec("gguf") is None,
    reason="llama.cpp's server is not here: put llama-server on the PATH (or in DODONA_LLAMA_SERVER) and pip install gguf",
)
def test_a_server_of_llama_cpp_draws_from_the_law_of_the_weights(tmp_path):
    """Weights of ours in its format, answers of its own sampler, log-probabilities audited against our policy."""
    policy = TransformerPolicy(V, size=(32, 2, 2, 64), context=64, seed=0)
    with torch.no_grad():
        policy.trunk.embedding.weight.mul_(20.0)
    write_gguf(policy, tmp_path / "policy.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [LLAMA, "-m", str(tmp_path / "policy.gguf"), "--host", "127.0.0.1", "--port", str(port), "-c", "256", "-t", "1", "-np", "4"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        engine = ServerEngine(url, eos_id=2, concurrency=4, retries=8, wait=0.1)
        told = engine.probe([1, 3], num_samples=4)
        assert told.token_ids and told.logprobs and told.law == "raw" and told.reload is None
        audit = audit_rollout(engine, policy, PROMPTS, num_samples=8)
        assert audit.max_abs < 0.05 and audit.num_answers == 24
        answers = engine.generate(PROMPTS, **OPTIONS)
        assert {r.finish for r in answers} == {"eos", "length"}
        with pytest.raises(InputError, match="takes no weights from a folder. Give deliver="):
            ServerEngine(url, policy=policy, weights=tmp_path).sync(policy.named_parameters(), version=1)  # fmt: skip
    finally:
        process.kill()
        process.wait()
