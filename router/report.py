"""The proof of a router in words: one Markdown page from the figures of `report.json`."""

from collections.abc import Sequence

from router.ablation_report import ablation_section
from router.cells import Figures, interval, number, table

REPORT_FILE = "report.md"
FIGURES_FILE = "report.json"

FLIPPED = """Flipped: the leading expert changed. Where a prompt has several labels, two experts may
share the lead and either may come first; hence the column of prompts with one label."""


def markdown(found: Figures, plots: Sequence[str] = (), findings: Sequence[Figures] = ()) -> str:
    """Return the page; `plots` are file names beside it, `findings` goals with their verdicts."""
    sections = [
        _head(found),
        goals_section(findings),
        _accuracy(found),
        _regret(found["regret"]),
        _promise(found["promise"]),
        _calibration(found),
        _first_stage(found),
        _novelty(found),
        _robustness(found),
        _peers(found["peers"]),
        ablation_section(found.get("ablation")),
        _plots(plots),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(found: Figures) -> str:
    router = found["router"]
    policy = ", ".join(f"{key} {value}" for key, value in router["policy"].items())
    return f"""# Report on router `{router["version"]}`

- Experts: {", ".join(router["experts"])}; the generalist is {router["generalist"]}
- Encoder: {router["encoder"] or "not named"}
- Policy: {policy}
- Rows: {router["rows"]:,} labelled prompts of {len(router["sources"])} sources
- Figures in brackets are 95 % intervals: paired bootstrap, {router["resamples"]:,} resamples within
  domains, seed {router["seed"]}
- Beyond the encoder a decision took {number(found["times"]["p50_ms"], 2)} ms (p50), \
{number(found["times"]["p99_ms"], 2)} ms (p99) during this run"""


def goals_section(findings: Sequence[Figures]) -> str:
    """Return the section on goals, empty without any."""
    if not findings:
        return ""
    rows = [
        (
            f"`{one['metric']}`",
            number(one["value"], 4),
            one["bound"],
            "yes" if one["reached"] else "**no**",
        )
        for one in findings
    ]
    return "## Goals\n\n" + table(("metric", "value", "goal", "reached"), rows)


def _accuracy(found: Figures) -> str:
    decisions = found["decisions"]
    rows = [
        (
            name,
            str(one["rows"]),
            interval(one["accuracy"]),
            number(one["precision"]),
            number(one["f1"]),
            number(one["label_chosen"]),
            number(one["experts"], 2),
            number(one["abstained"]),
        )
        for name, one in found["domains"].items()
    ]
    head = ("domain", "rows", "accuracy", "precision", "F1", "label chosen", "experts", "abstained")
    return f"""## Accuracy

Of prompts with one label {interval(found["accuracy"])}; macro-F1 {interval(found["macro_f1"])}. A
prompt counts as right where the most probable expert is one of its labels; "label chosen": a
label's expert is among the chosen.

{table(head, rows)}

Experts chosen on average: {number(decisions["experts"], 2)}. Left to the generalist for want of
confidence: {number(decisions["abstained"])}. Precisely the labels chosen: \
{number(decisions["exact_sets"])}; all
labels of prompts with several: {number(decisions["pairs_found"])}.

Confusion of prompts with one label (rows: label, columns: most probable):

{_confusion(found["confusion"])}

{_languages(found)}"""


def _confusion(counts: Figures) -> str:
    names = list(next(iter(counts.values()), {}))
    rows = [(true, *(str(row[name]) for name in names)) for true, row in counts.items()]
    return table(("", *names), rows)


def _languages(found: Figures) -> str:
    said = ", ".join(
        f"{name} {number(one['accuracy'])} ({one['rows']})"
        for name, one in found["languages"].items()
    )
    text = f"Accuracy by language (rows): {said}."
    unseen = found["unseen_languages"]
    if unseen is None:
        return text
    each = ", ".join(f"{name} {number(share)}" for name, share in unseen["by_language"].items())
    return f"""{text}

Prompts in languages that no training row is in ({unseen["rows"]} rows): {unseen["expert"]} is among
the chosen for {interval(unseen["chosen"])} ({each})."""


def _regret(regret: Figures | None) -> str:
    if regret is None:
        return ""
    rows = [
        (
            name,
            interval(one["macro"], 4),
            interval(one["over_best_single"]),
            "" if name == "router" else interval(one["against_router"], 4),
            ", ".join(f"{domain} {number(value)}" for domain, value in one["by_domain"].items()),
        )
        for name, one in regret["routers"].items()
    ]
    head = ("way of routing", "regret", "÷ best single's", "router − it", "by domain")
    return f"""## Regret

{regret["rows"]:,} prompts have an answer whose loss is known under every expert. Regret: loss of
the leading expert less the least loss of any, nats per answer token, mean over domains. The mixes
take the mean of the losses by the chosen weights. Controls cost what the router does. Shuffled: the
same decisions handed out in random order (the exact mean over all orders). Uniform: experts at
random, the same figure for any number of them. Best single: always {regret["best_single"]}. By
label: the experts of the labels. Where the interval of "router − it" lies below 0, the router is
better beyond chance.

{table(head, rows)}

{_decisive(regret)}"""


def _decisive(regret: Figures) -> str:
    peers = [f"{name} {interval(found)}" for name, found in regret["over_peers"].items()]
    said = f"Regret ÷ that of peers: {'; '.join(peers)}. " if peers else ""
    decisive = regret["decisive"]
    if decisive is not None:
        said += (
            f"Where the best expert leads by more than {decisive['margin']:g} nats "
            f"({decisive['rows']} rows), the router leads with it for "
            f"{interval(decisive['accuracy'])}. "
        )
    above = number(regret["above_epsilon"])
    return f"{said}Regret is above {regret['epsilon']:g} nats for {above} of the rows."


def _promise(promise: Figures | None) -> str:
    if promise is None:
        return ""
    columns = ("kept", "violations", "routed", "routed_in_domain")
    rows = [
        (f"{one['alpha']:g}", *(number(one[name]) for name in columns)) for one in promise["tries"]
    ]
    head = ("α", "kept", "violations", "routed", "routed, in domain")
    resplits = promise["tries"][0]["resplits"]
    return f"""## The promise on regret

Of what an expert leads and is routed, at most a share α has a regret over
{promise["epsilon"]:g} nats. The gate decides all, as under `max_risk`; its threshold was set on one
random half of the rows and tried on the other, {resplits} times.

{table(head, rows)}"""


def _calibration(found: Figures) -> str:
    calibration = found["calibration"]
    rows = [
        (str(one["rows"]), number(one["confidence"]), number(one["right"]))
        for one in calibration["bins"]
    ]
    return f"""## Calibration

Expected calibration error {number(calibration["ece"], 4)} over {len(rows)} bins of equal mass; \
NLL {number(calibration["nll"])}, Brier {number(calibration["brier"])}. The gate's area under
risk over coverage {number(found["risk_coverage"]["area"], 4)}.

{table(("rows", "confidence", "right"), rows)}"""


def _first_stage(found: Figures) -> str:
    first, times, errors = found["first_stage"], found["times"]["settled"], found["calibration"]
    if first is None:
        return ""
    each = ", ".join(f"{name} {number(share)}" for name, share in first["by_domain"].items())
    took = ""
    if times is not None:
        p50, p99 = (number(times[key], 2) for key in ("p50_ms", "p99_ms"))
        took = f" It took {p50} ms (p50), {p99} ms (p99)."
    return f"""## The first stage

It settles {interval(first["share"])} of the prompts by script and spelling alone, without the
encoder ({each}). Of these {interval(first["accuracy"], 4)} are right, and the gate would lead
{number(first["flipped"], 4)} of them with another expert.{took}

| prompts | accuracy | calibration error |
|---|---|---|
| with the first stage | {interval(first["cascade"], 4)} | {number(errors["ece"], 4)} |
| without | {interval(first["gate"], 4)} | {number(errors["gate"]["ece"], 4)} |
| lost by it | {interval(first["loss"], 4)} | |"""


def _novelty(found: Figures) -> str:
    named = {"served": "as served", "apart": "trained without the generalist's domain"}
    rows = [
        (
            named[name],
            f"{one['outside']} / {one['inside']}",
            interval(one["auroc"]),
            ", ".join(f"{family} {number(value)}" for family, value in one["by_family"].items()),
        )
        for name, one in found["novelty"].items()
        if one is not None
    ]
    if not rows:
        return ""
    head = ("gate", "rows outside / inside", "AUROC", "by source of the rows outside")
    return f"""## Prompts outside every expert's domain

How well the gate's own unfamiliarity tells prompts of the generalist's domain from those of the
experts' domains.

{table(head, rows)}"""


def _robustness(found: Figures) -> str:
    flips, translation = found["robustness"], found["translation"]
    parts = []
    if flips is not None:
        rows = [
            (
                f"{name}: {one['what']}",
                str(one["rows"]),
                interval(one["flipped"]),
                interval(one["single"]),
                number(one["accuracy"]),
            )
            for name, one in flips.items()
        ]
        head = ("transform", "rows", "flipped", "flipped, one label", "accuracy after")
        parts.append(f"{FLIPPED}\n\n{table(head, rows)}")
    if translation is not None:
        each = ", ".join(f"{k} {number(v)}" for k, v in translation["by_language"].items())
        parts.append(
            f"Translations of prompts of one label ({translation['rows']} rows): its expert stays "
            f"among the chosen for {interval(translation['kept'])} ({each})."
        )
    return "\n\n".join(("## Robustness", *parts)) if parts else ""


def _peers(peers: Figures | None) -> str:
    if peers is None:
        return ""
    rows = [
        (
            name,
            one["setting"],
            interval(one["accuracy"]),
            number(one["macro_f1"]),
            number(one["worst_domain"]),
            number(one["p50_ms"], 2),
            number(one["p99_ms"], 2),
        )
        for name, one in peers.items()
    ]
    head = ("router", "setting", "accuracy", "macro-F1", "worst domain", "p50 ms", "p99 ms")
    return f"""## Peers

Same sentence vectors, same training rows, same prompts with one label; times are of one decision
without the encoder. Ours reads the text's surface too, and its time holds that.

{table(head, rows)}"""


def _plots(names: Sequence[str]) -> str:
    shown = [f"![{name.partition('.')[0]}]({name})" for name in names]
    return "\n\n".join(("## Plots", *shown)) if shown else ""
