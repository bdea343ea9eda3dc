"""``list``, ``describe``, ``delete``, ``revisions``, ``rollback``, ``alias``."""

from fake_platform import CONFIG, FUNCTION, Answer, problem

ALIASES = [{"function": "greeter", "name": "live", "weights": {"1": 90, "2": 10}}]


def revision(number, serving):
    """A revision as the API lists it."""
    return {
        "id": f"greeter@{number}",
        "number": number,
        "serving": serving,
        "config": CONFIG,
        "code": "c" * 64,
        "dependencies": None,
        "created": 1e9,
    }


REVISIONS = [revision(2, True), revision(1, False)]


def test_list_shows_a_table(martlet, platform):
    platform.answer("GET", "/functions", [FUNCTION])
    result = martlet("list")
    assert result.code == 0
    heading, row = result.out.splitlines()
    assert heading.split() == ["NAME", "REVISION", "STATE", "RUNTIME", "MODE", "MEMORY", "UPDATED"]
    assert row.split()[:6] == ["greeter", "2", "ready", "python3.11", "process", "128Mi"]
    assert platform.seen[0].headers["authorization"] == "Bearer the-key"


def test_list_prints_the_answer_of_the_api_as_json(martlet, platform):
    platform.answer("GET", "/functions", [FUNCTION])
    assert martlet("list", "--json").json == [FUNCTION]


def test_an_empty_list_says_what_to_do_and_keeps_stdout_clean(martlet, platform):
    platform.answer("GET", "/functions", [])
    result = martlet("list")
    assert (result.code, result.out) == (0, "")
    assert "martlet init" in result.err
    assert martlet("list", "--json").json == []


def test_describe_shows_configuration_aliases_and_address(martlet, platform):
    platform.answer("GET", "/functions/greeter", FUNCTION)
    platform.answer("GET", "/functions/greeter/aliases", ALIASES)
    shown = dict(line.split(maxsplit=1) for line in martlet("describe", "greeter").out.splitlines())
    assert shown["url"] == f"{platform.url}/invoke/greeter"
    assert shown["memory"] == "128Mi"
    assert shown["environment"] == "GREETING=hi"
    assert shown["alias"].split(maxsplit=1) == ["live", "1=90, 2=10"]
    described = martlet("describe", "greeter", "--json").json
    assert described == {**FUNCTION, "aliases": ALIASES, "url": f"{platform.url}/invoke/greeter"}


def test_delete_asks_first(martlet, platform, monkeypatch):
    platform.answer("DELETE", "/functions/greeter", Answer(b"", 204))
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("n\n"))
    assert martlet("delete", "greeter").code == 1
    assert platform.requests("DELETE") == []
    assert martlet("delete", "greeter", "--yes").code == 0
    assert [each.path for each in platform.requests("DELETE")] == ["/functions/greeter"]


def test_revisions_marks_the_one_that_serves(martlet, platform):
    platform.answer("GET", "/functions/greeter/revisions", REVISIONS)
    rows = martlet("revisions", "greeter").out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["2*", "1"]
    assert martlet("revisions", "greeter", "--json").json == REVISIONS


def test_rollback_goes_to_the_named_revision_or_the_one_before(martlet, platform):
    platform.answer("GET", "/functions/greeter/revisions", REVISIONS)
    platform.answer("POST", "/functions/greeter/rollback", FUNCTION)
    assert martlet("rollback", "greeter").code == 0
    assert martlet("rollback", "greeter", 2).code == 0
    assert [each.json for each in platform.requests("POST")] == [{"revision": 1}, {"revision": 2}]


def test_there_is_nothing_to_roll_back_to_before_the_first_revision(martlet, platform):
    platform.answer("GET", "/functions/greeter/revisions", [revision(1, True)])
    result = martlet("rollback", "greeter")
    assert result.code == 2
    assert "no revision before 1" in result.err


def test_an_alias_points_at_revisions_with_their_shares(martlet, platform):
    platform.answer("PUT", "/functions/greeter/aliases/live", ALIASES[0])
    assert martlet("alias", "set", "greeter", "live", "1=90", "2=10").code == 0
    assert martlet("alias", "set", "greeter", "live", "2").code == 0
    assert [each.json for each in platform.requests("PUT")] == [
        {"weights": {"1": 90, "2": 10}},
        {"weights": {"2": 100}},
    ]


def test_a_share_that_is_none_is_a_wrong_argument(martlet, platform):
    result = martlet("alias", "set", "greeter", "live", "one=half")
    assert result.code == 2
    assert "one=half" in result.err


def test_aliases_are_listed_and_deleted(martlet, platform):
    platform.answer("GET", "/functions/greeter/aliases", ALIASES)
    platform.answer("DELETE", "/functions/greeter/aliases/live", Answer(b"", 204))
    assert martlet("alias", "list", "greeter", "--json").json == ALIASES
    assert martlet("alias", "list", "greeter").out.splitlines()[1].split(maxsplit=1) == ["live", "1=90, 2=10"]
    assert martlet("alias", "delete", "greeter", "live").code == 0


def test_a_function_that_is_not_there_has_its_own_exit_code_and_a_next_step(martlet, platform):
    platform.answer(
        "GET", "/functions/gone", problem(404, "function_not_found", "there is no function 'gone'")
    )
    result = martlet("describe", "gone")
    assert result.code == 3
    assert result.err.splitlines() == [
        "martlet: there is no function 'gone'",
        "         `martlet list` shows the functions, `martlet revisions NAME` what one has",
    ]
