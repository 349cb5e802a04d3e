"""The configuration file: every fault is named by its key, and nothing is guessed."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config import DEFAULT_FILE, Config, ConfigError, Placement


def body(**sections: object) -> dict[str, Any]:
    return {
        "models": {"base": {"source": "smollm2-135m-instruct"}},
        "experts": {"general": {"model": "base"}, "legal": {"model": "base", "adapter": "x"}},
        **sections,
    }


def with_expert(**expert: object) -> dict[str, Any]:
    found = body()
    found["experts"]["more"] = expert
    return found


def faults(found: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.check(found)
    head, *lines = str(caught.value).splitlines()
    assert head == f"configuration has {len(lines)} fault(s):"
    return [line.strip() for line in lines]


def fault(found: object) -> str:
    (line,) = faults(found)
    return line


def test_the_embedded_default_is_valid_and_needs_no_file() -> None:
    config = Config.load()
    assert list(config.experts) == ["general", "code", "legal", "multilingual"]
    assert config.generalist == "general"
    assert config.placement is Placement.TOGETHER
    assert config.server.host == "127.0.0.1"
    assert not config.server.haproxy
    assert Config.check(yaml.safe_load(DEFAULT_FILE.read_text())) == config


def test_a_configuration_survives_its_own_dump() -> None:
    config = Config.load()
    assert Config.check(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            with_expert(model="base", adaptor="a"),
            "`experts.more.adaptor` is not a known key; did you mean `adapter`? Allowed: adapter, "
            "attachments, collections, deployment, description, enabled, languages, model, pinned, "
            "price, remote.",
        ),
        (body(router={"topk": 3}), "`router.topk` is not a known key; did you mean `top_k`? "),
        (body(placment="apart"), "`placment` is not a known key; did you mean `placement`? "),
        (
            with_expert(model="base", deployment={"autoscaling": {"max_replica": 2}}),
            "`experts.more.deployment.autoscaling.max_replica` is not a known key; did you mean "
            "`max_replicas`? ",
        ),
        (body(zzz=1), "`zzz` is not a known key. Allowed: cache, combination, encoder, "),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_match(found: object, expected: str) -> None:
    assert fault(found).startswith(expected)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            body(placement="near"),
            "`placement` must be 'apart' or 'together', but \"near\" was found.",
        ),
        (
            body(combination={"mode": "rank"}),
            "`combination.mode` must be 'blend' or 'mixture', but \"rank\" was found.",
        ),
        (
            body(server={"port": 99999}),
            "`server.port` must be less than or equal to 65535, but 99999 was found.",
        ),
        (
            body(limits={"max_tokens": 0}),
            "`limits.max_tokens` must be greater than or equal to 1, but 0 was found.",
        ),
        (body(router={"top_p": 0.0}), "`router.top_p` must be greater than 0, but 0.0 was found."),
        (
            body(router={"gates": {"held_out.ece": {}}}),
            "`router.gates.held_out.ece` must give at least one of at_least, at_most, drop, rise",
        ),
        (
            body(router={"gates": {"held_out.ece": {"rise": -0.1}}}),
            "`router.gates.held_out.ece.rise` must be greater than or equal to 0",
        ),
        (
            body(router={"gates": {"held_out.ece": {"atmost": 1}}}),
            "`router.gates.held_out.ece.atmost` is not a known key; did you mean `at_most`?",
        ),
        (body(sampling={"temperature": float("nan")}), "`sampling.temperature` must be a finite"),
        (body(retrieval={"enabled": "maybe"}), "`retrieval.enabled` must be a valid boolean"),
        (
            body(models={"base": {"source": "x", "device": "gpu"}}),
            "`models.base.device` must match pattern",
        ),
        (body(models={"base": {}}), "`models.base.source` is required but was not found."),
        (
            body(models={"base": {"source": "x", "device": "cuda", "dtype": "int8"}}),
            "`models.base.dtype` 'int8' needs `device: cpu`, not 'cuda'",
        ),
        (
            body(
                models={"base": {"source": "x", "resident_adapters": 1}},
                experts={
                    "general": {"model": "base"},
                    "a": {"model": "base", "adapter": "a", "pinned": True},
                    "b": {"model": "base", "adapter": "b"},
                },
            ),
            "`models.base.resident_adapters` is 1, but 1 of 2 adapters are pinned: set 2 or more",
        ),
        (body(models={}), "`models` must have at least 1 item"),
        (body(models=[]), "`models` must be a"),
        (with_expert(model="base", collections=["No Space"]), "`experts.more.collections[0]` must"),
        (
            body(experts={"Bad Name": {"model": "base"}, "general": {"model": "base"}}),
            "`experts.Bad Name` must match pattern",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(found: object, expected: str) -> None:
    assert fault(found).startswith(expected)


def test_an_expert_over_an_unknown_model_is_named_with_the_models_there_are() -> None:
    assert fault(with_expert(model="bass")) == (
        "`experts.more.model` is 'bass', which is none of `models`: name one of base, or add it "
        "there."
    )


@pytest.mark.parametrize("generalist", ["legal", "nobody"])
def test_the_generalist_must_be_an_expert_without_adapter(generalist: str) -> None:
    assert fault(body(generalist=generalist)) == (
        f"`generalist` is '{generalist}'; it must name an expert without adapter: general."
    )


def test_a_reserved_name_is_refused() -> None:
    found = body()
    found["experts"]["auto"] = {"model": "base"}
    assert fault(found).startswith("`experts.auto` is a reserved name")


@pytest.mark.parametrize(("most", "found"), [({"max_replicas": 2}, 2), ({}, 1)])
def test_more_replicas_at_least_than_at_most_are_refused(most: dict[str, int], found: int) -> None:
    scaling = {"autoscaling": {"min_replicas": 3, **most}}
    assert fault(with_expert(model="base", deployment=scaling)) == (
        f"`experts.more.deployment.autoscaling.max_replicas` is {found}, below `min_replicas`, 3: "
        "raise the one or lower the other."
    )


@pytest.mark.parametrize(
    "expert",
    [{}, {"model": "base", "remote": {"base_url": "http://localhost:1/v1", "model": "m"}}],
)
def test_an_expert_is_either_local_or_remote(expert: dict[str, object]) -> None:
    assert fault(with_expert(**expert)) == (
        "`experts.more.model` or `remote` must be given, and only one of them."
    )


def test_a_remote_expert_has_no_adapter() -> None:
    remote = {"base_url": "http://localhost:1/v1", "model": "m"}
    assert fault(with_expert(remote=remote, adapter="x")).startswith("`experts.more.adapter` needs")


def test_several_faults_are_listed_at_once() -> None:
    found = body(placement="near", server={"port": 0}, retrieval={"topk": 1})
    found["experts"]["legal"]["adaptor"] = "x"
    lines = faults(found)
    assert [line.split("`")[1] for line in lines] == [
        "experts.legal.adaptor",
        "placement",
        "retrieval.topk",
        "server.port",
    ]


def test_a_confidence_and_a_promised_risk_exclude_each_other() -> None:
    (line,) = faults(body(router={"max_risk": 0.1, "min_confidence": 0.5}))
    assert line.startswith("`router.max_risk` and `min_confidence` both say when")
    for settings in ({"max_risk": 0.1}, {"min_confidence": 0.5}, {"max_risk": None}):
        Config.check(body(router=settings))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("languages", ["pt_BR"]),
        ("attachments", ["py"]),
        ("attachments", [".PY"]),
        ("attachments", ["*.py"]),
        ("attachments", ["text/"]),
        ("price", {"input": -1}),
        ("price", {"outptu": 1}),
    ],
)
def test_a_wrong_language_or_price_is_named(key: str, value: object) -> None:
    (line,) = faults(body(experts={"general": {"model": "base", key: value}}))
    assert line.startswith(f"`experts.general.{key}")


def test_all_faults_of_one_section_are_listed_at_once() -> None:
    assert faults(body(router={"topk": 3, "top_p": 7, "wieghts": "x", "threads": 0})) == [
        "`router.topk` is not a known key; did you mean `top_k`? Allowed: deployment, "
        "evidence, explore, first_stage, gates, load_balance, max_risk, max_sessions, "
        "min_confidence, min_weight, sampled_per_hour, session_ttl_s, threads, top_k, top_p, "
        "versions, weights.",
        "`router.wieghts` is not a known key; did you mean `weights`? Allowed: deployment, "
        "evidence, explore, first_stage, gates, load_balance, max_risk, max_sessions, "
        "min_confidence, min_weight, sampled_per_hour, session_ttl_s, threads, top_k, top_p, "
        "versions, weights.",
        "`router.top_p` must be less than or equal to 1, but 7 was found.",
        "`router.threads` must be greater than or equal to 1, but 0 was found.",
    ]


def test_faults_between_keys_are_listed_with_faults_of_keys() -> None:
    found = body(
        generalist="nobody",
        sevrer={},
        retrieval={"deployment": {"autoscaling": {"min_replicas": 4, "up": 1}}},
    )
    found["experts"] |= {
        "lost": {"model": "bass", "adaptor": "x"},
        "both": {"model": "base", "remote": {"base_url": "ftp://host"}, "collections": "x"},
        "far": {"remote": {"base_url": "https://a:b@host", "model": "m", "api_key_env": "sk-1"}},
        "auto": {"model": "base", "deployment": {"max_ongoing_requests": 0}},
    }
    assert sorted(line.split("`")[1] for line in faults(found)) == [
        "experts.auto",
        "experts.auto.deployment.max_ongoing_requests",
        "experts.both.collections",
        "experts.both.model",
        "experts.both.remote.base_url",
        "experts.both.remote.model",
        "experts.far.remote.api_key_env",
        "experts.far.remote.base_url",
        "experts.lost.adaptor",
        "experts.lost.model",
        "generalist",
        "retrieval.deployment.autoscaling.max_replicas",
        "retrieval.deployment.autoscaling.up",
        "sevrer",
    ]


def deployments(**settings: dict[str, Any] | None) -> dict[str, Any]:
    found = body()
    found["models"]["other"] = {"source": "x"}
    for name, deployment in settings.items():
        expert = found["experts"].setdefault(name, {"model": "base"})
        if deployment is not None:
            expert["deployment"] = deployment
    return found


def test_experts_of_one_deployment_must_not_ask_for_different_ones() -> None:
    found = deployments(
        general={"resources": {"num_cpus": 2}, "autoscaling": {"max_replicas": 3}},
        legal={"resources": {"num_cpus": 4}, "autoscaling": {"max_replicas": 3}},
        more={"resources": {"custom": {"gpu_class": 1}}},
    )
    assert faults(found) == [
        "`experts.legal.deployment` differs from `experts.general.deployment` in "
        "`resources.num_cpus`, but placed together the experts of model 'base' share one "
        "deployment: give them equal settings, set them at one expert only, or set "
        "`placement: apart`.",
        "`experts.more.deployment` differs from `experts.general.deployment` in "
        "`autoscaling.max_replicas`, `resources.num_cpus`, `resources.custom.gpu_class`, but "
        "placed together the experts of model 'base' share one deployment: give them equal "
        "settings, set them at one expert only, or set `placement: apart`.",
    ]
    assert Config.check(found | {"placement": "apart"}).placement is Placement.APART


def test_experts_that_share_no_deployment_may_differ() -> None:
    found = deployments(
        general={"resources": {"num_cpus": 2}}, more={"resources": {"num_cpus": 4}}, far=None
    )
    found["experts"]["more"]["model"] = "other"
    found["experts"]["far"] = {
        "remote": {"base_url": "http://localhost:1/v1", "model": "m"},
        "deployment": {"resources": {"num_cpus": 8}},
    }
    config = Config.check(found)
    cpus = {name: config.deployment([name]).resources.num_cpus for name in ("more", "far")}
    assert cpus == {"more": 4, "far": 8}


@pytest.mark.parametrize("others", [None, {}, {"resources": {}}, {"resources": {"num_gpus": 1}}])
def test_what_one_expert_sets_counts_for_all_of_its_deployment(others: dict[str, Any]) -> None:
    found = deployments(general=None, legal={"resources": {"num_gpus": 1}}, more=others)
    config = Config.check(found)
    assert config.deployment(["general", "legal", "more"]).resources.num_gpus == 1
    assert Config.check(config.model_dump()) == config


def test_relative_paths_are_anchored_to_the_file(tmp_path: Path) -> None:
    found = body(
        router={"weights": "embedded-gates", "versions": "versions"},
        retrieval={"directory": "../collections"},
        feedback={"directory": "feedback"},
        encoder={"source": "./encoder"},
    )
    found["models"] |= {
        "hub": {"source": "Qwen/Qwen3-8B"},
        "file": {"source": "models/a.gguf"},
        "far": {"source": "/models/a.gguf"},
    }
    found["experts"] |= {
        "code": {"model": "base", "adapter": "embedded:code"},
        "far": {"model": "base", "adapter": "/adapters/far"},
    }
    path = tmp_path / "collegium.yaml"
    path.write_text(yaml.safe_dump(found))
    config = Config.load(path)
    assert {name: expert.adapter for name, expert in config.experts.items()} == {
        "general": None,
        "legal": f"{tmp_path}/x",
        "code": "embedded:code",
        "far": "/adapters/far",
    }
    assert config.feedback.directory == f"{tmp_path}/feedback"
    assert {name: model.source for name, model in config.models.items()} == {
        "base": "smollm2-135m-instruct",
        "hub": "Qwen/Qwen3-8B",
        "file": f"{tmp_path}/models/a.gguf",
        "far": "/models/a.gguf",
    }
    assert config.encoder.source == f"{tmp_path}/encoder"
    assert config.router.weights == f"{tmp_path}/embedded-gates"
    assert config.router.versions == f"{tmp_path}/versions"
    assert config.retrieval.directory == f"{tmp_path}/../collections"


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    found = body()
    found["experts"]["legal"]["adapter"] = "~/adapters/legal"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(found))
    config = Config.load(tmp_path / "c.yaml")
    assert config.experts["legal"].adapter == "/home/somebody/adapters/legal"


def test_a_remote_key_is_read_from_the_environment_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-very-secret")
    remote = {"base_url": "https://host/v1", "model": "m", "api_key_env": "UPSTREAM_KEY"}
    config = Config.check(with_expert(remote=remote))
    assert "UPSTREAM_KEY" in repr(config)
    assert "very-secret" not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"api_key_env": "sk-very-secret"}, "api_key_env"),
        ({"api_key": "sk-very-secret"}, "api_key"),
        ({"base_url": "https://me:very-secret@host/v1"}, "base_url"),
    ],
)
def test_a_key_in_the_file_is_refused_without_showing_it(
    change: dict[str, object], key: str
) -> None:
    remote = {"base_url": "https://host/v1", "model": "m", **change}
    with pytest.raises(ConfigError, match=f"`experts.more.remote.{key}`") as caught:
        Config.check(with_expert(remote=remote))
    assert "very-secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (b"models: [", "while parsing"),
        (b"a: b: c", "mapping values are not allowed"),
        (b"\xff\xfe\x00x", "codec can't decode"),
        (b"x: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"experts:\n  a: {model: x}\n  a: {model: y}\n", "key 'a' is given twice"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_refused(
    tmp_path: Path, written: bytes, reason: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(written)
    with pytest.raises(ConfigError, match=reason) as caught:
        Config.load(path)
    assert str(caught.value).startswith(f"cannot read '{path}': ")


@pytest.mark.parametrize("written", ["", "[]", "just text", "5"])
def test_a_file_without_keys_says_which_keys_there_are(tmp_path: Path, written: str) -> None:
    (tmp_path / "c.yaml").write_text(written)
    with pytest.raises(ConfigError, match=r"^c\.yaml must hold the keys models, experts, "):
        Config.load(tmp_path / "c.yaml")


def test_a_file_without_models_and_experts_changes_the_default(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("cache: {exact: true}\nplacement: apart\n")
    found = Config.load(tmp_path / "c.yaml").model_dump()
    wanted = Config.load().model_dump()
    assert found["cache"].pop("exact") is True and wanted["cache"].pop("exact") is False
    assert (found.pop("placement"), wanted.pop("placement")) == ("apart", "together")
    for one in (found, wanted):
        # Paths are anchored to the file where there is one.
        del one["router"]["versions"], one["retrieval"]["directory"], one["cache"]["directory"]
    assert found == wanted


@pytest.mark.parametrize("name", ["models", "experts"])
def test_a_file_with_only_one_of_both_lacks_the_other(tmp_path: Path, name: str) -> None:
    (tmp_path / "c.yaml").write_text(f"{name}: {{}}\n")
    other = "experts" if name == "models" else "models"
    with pytest.raises(ConfigError, match=f"`{other}` is required but was not found"):
        Config.load(tmp_path / "c.yaml")


def test_a_merged_mapping_may_override_a_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "models:\n  base: &base {source: a/b, context: 512}\n"
        "  other: {<<: *base, source: c/d}\nexperts:\n  general: {model: base}\n"
    )
    other = Config.load(tmp_path / "c.yaml").models["other"]
    assert (other.source, other.context) == ("c/d", 512)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml': .*No such file"):
        Config.load(tmp_path / "nowhere.yaml")


def test_a_checked_configuration_cannot_be_changed() -> None:
    config = Config.load()
    with pytest.raises(ValueError, match="frozen"):
        config.placement = Placement.APART


def test_kinds_of_files_are_endings_or_media_types() -> None:
    kinds = [".py", ".c++", ".tar_gz", "text/x-python", "application/ld+json"]
    config = Config.check(body(experts={"general": {"model": "base", "attachments": kinds}}))
    assert config.experts["general"].attachments == kinds


def test_evidence_needs_a_search() -> None:
    found = body(router={"evidence": True}, retrieval={"enabled": False})
    assert fault(found) == (
        "`router.evidence` is true, but `retrieval.enabled` is false: nothing would be found. "
        "Switch on the one, or off the other."
    )
    for sections in ({"router": {"evidence": True}}, {"retrieval": {"enabled": False}}):
        assert Config.check(body(**sections))


def test_attachments_may_be_forbidden_altogether() -> None:
    assert Config.check(body(limits={"max_attachments": 0})).limits.max_attachments == 0
    assert fault(body(limits={"max_attachment_bytes": 0})).startswith("`limits.max_attachment_byt")
