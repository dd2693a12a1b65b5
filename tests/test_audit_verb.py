"""``dodona audit`` as a user meets it: text, JSON, page."""

import json

import pytest

from dodona.cli import main


def test_the_text_states_the_findings_first(capsys):
    assert main(["audit", "Taxi-v4"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert (
        lines[0] == "Taxi-v4: the threshold 8 is out of reach, the optimum within 200 steps is 7.93"
    )
    topics = [line.split("  ")[0] for line in lines if line[:1].isalpha() and "  " in line]
    assert topics[:5] == ["optimum", "threshold", "time limit", "stationary", "loops"]
    assert max(map(len, lines)) <= 100


def test_json_goes_alone_to_standard_output(capsys):
    assert main(["audit", "FrozenLake8x8-v1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["time_limit"] == 200 and data["reward_threshold"] == 0.85
    within = next(t for t in data["threshold"] if t["setting"] == "limit, time-aware")
    assert within["reached"] and within["margin"]["value"] == pytest.approx(0.0632201502)


@pytest.mark.parametrize(
    "env_id, pictures",
    [("FrozenLake-v1", ["limits", "grid"]), ("Taxi-v4", ["limits", "starts"])],
)  # fmt: skip
def test_out_writes_numbers_text_and_one_self_contained_page(env_id, pictures, capsys, tmp_path):
    assert main(["audit", env_id, "--out", str(tmp_path / "a"), "--gamma", "1"]) == 0
    caught = capsys.readouterr()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "audit.html",
        "audit.json",
        "audit.txt",
    ]
    page = (tmp_path / "a" / "audit.html").read_text()
    assert str(tmp_path / "a" / "audit.html") in caught.err
    assert caught.out.strip() == (tmp_path / "a" / "audit.txt").read_text().strip()
    assert [p for p in ("limits", "grid", "starts") if f"<figure id='{p}'" in page] == pictures
    assert f"<h1>{env_id}</h1>" in page and f"dodona audit {env_id}" in page
    assert "src=" not in page.split("</script>")[-1] and "<link" not in page


def test_a_picture_shows_only_cells_that_are_entered():
    from dodona.audit_page import figures
    from dodona.mdp.audit import audit

    drawn = figures(audit("CliffWalking-v1"))
    grid = drawn["grid"]
    assert len(grid.layout.shapes) == 10  # the cliff, grey
    assert len(grid.layout.annotations) == 38  # a number in every cell that is entered
    assert [f.name for f in grid.frames][-1] == "no limit"
    assert drawn["limits"].layout.title.text == (
        "From 13 steps on, a time limit changes the optimum by less than 1 %"
    )


def test_the_page_of_a_game_without_an_optimum_still_has_its_pictures():
    import gymnasium

    from dodona.audit_page import page_body
    from dodona.mdp.audit import audit

    # holes that swallow without an end: no success, no termination
    env = gymnasium.make("FrozenLake-v1", max_episode_steps=20)
    table = env.unwrapped.P
    for s, rows in table.items():
        for a, row in rows.items():
            hole = env.unwrapped.desc.flat[s] == b"H"
            stay = [(1.0, s, 0.0, False)]
            rows[a] = stay if hole else [(p, j, r, j == 15) for p, j, r, _ in row]
    body = page_body(audit(env), "dodona audit mine")
    env.close()
    assert "can never end, whatever is done, so only the limit makes it a task" in body
    assert "id='grid'" in body


@pytest.mark.parametrize(
    "words, message",
    [
        (["audit", "FrozenLak-v1"], "Did you mean 'FrozenLake-v1'"),
        (["audit", "Taxi-v3x"], "Gymnasium has no environment 'Taxi-v3x'"),
        (["audit", "CartPole-v1"], "has no table env.unwrapped.P"),
        (["audit", "CliffWalking-v1", "--gamma", "2"], "gamma must be in [0, 1], got 2.0"),
    ],
)
def test_a_mistake_exits_two_and_says_what_to_do(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_an_output_folder_that_can_not_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["audit", "CliffWalking-v1", "--out", str(tmp_path / "file")]) == 2
    assert "can not be written" in capsys.readouterr().err
