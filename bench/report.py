"""What `compare.py` measured: medians, ratios, a table in Markdown, plots in SVG."""

from statistics import median, quantiles
from xml.sax.saxutils import escape

COLOURS = {"LightGPT": "#1b6ca8", "llama.cpp": "#d9822b", "torch": "#8a8f98"}


def key_of(result):
    """What was measured, as a key: (kind, tokens, depth, sequences)."""
    about = (result["kind"], result["tokens"], result["context_depth"])
    return (*about, result.get("sequences", 1))


def title(key):
    kind, tokens, depth, sequences = key
    if kind == "batch":
        return f"decode, {sequences} sequences"
    return f"{kind} {tokens}" + (f" behind {depth}" if depth else "")


def spread(numbers):
    if len(numbers) < 2:
        return dict(min=min(numbers), max=max(numbers), interquartile=0.0)
    low, _, high = quantiles(numbers, n=4, method="inclusive")
    return dict(min=min(numbers), max=max(numbers), interquartile=high - low)


def summary(model, engines, limits):
    """One model: for each measurement each engine's best settings, and ratios to ours.

    `engines` are dicts of engine, settings and turns, ours first; a turn maps what `key_of` gives to
    tokens a second. `limits` is the last answer of our own bench.
    """
    percents = {key_of(one): one for one in limits["results"]}
    keys = dict.fromkeys(key for one in engines for key in one["turns"][0])
    results = []
    for key in keys:
        ours = [turn[key] for turn in engines[0]["turns"] if key in turn]
        entries = {}
        for one in engines:
            speeds = [turn[key] for turn in one["turns"] if key in turn]
            known = entries.get(one["engine"])
            if not speeds or known and known["tokens_per_second"] >= median(speeds):
                continue
            entry = dict(settings=one["settings"], tokens_per_second=median(speeds),
                         spread=spread(speeds), rounds=speeds)
            if ours and one is not engines[0]:
                ratios = [a / b for a, b in zip(ours, speeds)]
                entry["ratio"] = dict(median=median(ratios), **spread(ratios))
            entries[one["engine"]] = entry
        limit = percents.get(key, {})
        results.append(dict(
            kind=key[0], tokens=key[1], context_depth=key[2], sequences=key[3], title=title(key),
            engines=entries,
            percent_of_peak=limit.get("percent_of_peak"),
            percent_of_read=limit.get("percent_of_read"),
        ))
    about = {key: limits[key] for key in ("cpu", "isa", "threads", "kv", "version", "limits")}
    return dict(model=model, **about, results=results)


def markdown(summaries):
    others = [name for name in COLOURS if name != "LightGPT" and any(
        name in result["engines"] for one in summaries for result in one["results"])]
    head = ["model", "measured", "LightGPT tokens/s", "of peak", "of read"]
    for name in others:
        head += [f"{name} tokens/s", "ratio", "settings"]
    rows = [head, ["---"] * len(head)]
    speed = lambda entry: (
        f"{entry['tokens_per_second']:.1f} ± {entry['spread']['interquartile'] / 2:.1f}"
        if entry else "-")
    percent = lambda value: "-" if value is None else f"{value:.0f} %"
    for one in summaries:
        for result in one["results"]:
            entries = result["engines"]
            row = [one["model"], result["title"], speed(entries.get("LightGPT"))]
            row += [percent(result["percent_of_peak"]), percent(result["percent_of_read"])]
            for name in others:
                entry = entries.get(name)
                ratio = (entry or {}).get("ratio")
                settings = (entry or {}).get("settings", {})
                row += [speed(entry)]
                row += [f"**{ratio['median']:.2f}** ({ratio['min']:.2f}-{ratio['max']:.2f})"
                        if ratio else "-"]
                row += [", ".join(f"{key} {value}" for key, value in settings.items()) or "-"]
            rows.append(row)
    one = summaries[0]
    rates = one["limits"]
    note = (
        f"{one['cpu']}, {one['isa']}, {one['threads']} threads, keys and values {one['kv']}. "
        f"Reading {rates['read_bytes_per_second'] / 1e9:.1f} GB/s; multiply-adds "
        f"{rates['integer']['multiply_adds_per_second'] / 1e9:.0f} G/s of integers, "
        f"{rates['float']['multiply_adds_per_second'] / 1e9:.0f} G/s of floats. Medians; ± half of "
        "the distance of the quartiles; ratios of one round each, their median and range."
    )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + note + "\n"


def plots(summaries, folder):
    """A plot for each measurement that several engines or models have: bars of tokens/s."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = dict.fromkeys(r["title"] for one in summaries for r in one["results"])
    for name in titles:
        groups = []
        for one in summaries:
            for result in one["results"]:
                if result["title"] == name:
                    groups.append((one["model"], result["engines"]))
        path = folder / (name.replace(",", "").replace(" ", "-") + ".svg")
        path.write_text(bars(f"{name}: tokens a second", groups))
        yield path


def bars(heading, groups):
    """Horizontal bars, grouped by model; whiskers from the least to the most."""
    left, wide, bar, gap = 190, 460, 16, 14
    names = [name for name in COLOURS if any(name in engines for _, engines in groups)]
    most = max(e["spread"]["max"] for _, engines in groups for e in engines.values())
    scale = lambda value: left + value / most * wide
    parts, y = [], 58
    for model, engines in groups:
        top = y
        for name in names:
            entry = engines.get(name)
            if entry:
                value, ends = entry["tokens_per_second"], entry["spread"]
                low, high, middle = scale(ends["min"]), scale(ends["max"]), y + bar / 2
                parts.append(
                    f'<rect x="{left}" y="{y}" width="{scale(value) - left:.1f}" '
                    f'height="{bar - 2}" fill="{COLOURS[name]}"/>'
                    f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222" fill="none"/>'
                    f'<text x="{high + 6:.1f}" y="{y + bar - 5}">{value:.1f}</text>')
            y += bar
        parts.append(f'<text x="{left - 8}" y="{(top + y) / 2 + 4}" text-anchor="end">'
                     f"{escape(model)}</text>")
        y += gap
    for i, name in enumerate(names):
        x = left + 110 * i
        parts.append(f'<rect x="{x}" y="32" width="10" height="10" fill="{COLOURS[name]}"/>'
                     f'<text x="{x + 15}" y="41">{escape(name)}</text>')
    width = left + wide + 70
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" '
        f'height="{y}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{y}" fill="#fff"/>'
        f'<text x="{left}" y="20" font-size="14">{escape(heading)}</text>'
        + "".join(parts) + "</svg>\n"
    )
