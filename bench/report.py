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
    """A plot for each measurement: bars of tokens/s, and the machine's limit where it is known."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = dict.fromkeys(r["title"] for one in summaries for r in one["results"])
    for name in titles:
        groups = [
            (one["model"], result)
            for one in summaries for result in one["results"] if result["title"] == name
        ]
        path = folder / (name.replace(",", "").replace(" ", "-") + ".svg")
        path.write_text(bars(f"{name}, tokens a second", groups))
        yield path


def limit(result):
    """Tokens a second if memory (single tokens) or multiply-adds (prompts) were all that counts."""
    ours = result["engines"].get("LightGPT")
    percent = result["percent_of_read"] or result["percent_of_peak"]
    return 100 * ours["tokens_per_second"] / percent if ours and percent else None


def bars(heading, groups):
    """Horizontal bars, grouped by model; whiskers from the least to the most, a dashed line at the
    limit, and how many times faster LightGPT is."""
    left, wide, bar, gap, top = 190, 420, 18, 16, 64
    names = [name for name in COLOURS if any(name in r["engines"] for _, r in groups)]
    most = max([e["spread"]["max"] for _, r in groups for e in r["engines"].values()]
               + [limit(r) or 0 for _, r in groups])
    scale = lambda value: left + value / most * wide
    parts, y = [], top
    for model, result in groups:
        entries = [(name, result["engines"][name]) for name in names if name in result["engines"]]
        start = y
        for name, entry in entries:
            value, ends, middle = entry["tokens_per_second"], entry["spread"], y + bar / 2 - 1
            low, high, ratio = scale(ends["min"]), scale(ends["max"]), entry.get("ratio")
            label = f"{value:.4g}" + (f"   (LightGPT {ratio['median']:.2f}x)" if ratio else "")
            parts.append(
                f'<rect x="{left}" y="{y}" width="{scale(value) - left:.1f}" height="{bar - 2}" '
                f'rx="2" fill="{COLOURS[name]}"/>'
                f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 3}v6'
                f'M{high:.1f} {middle - 3}v6" stroke="#222" fill="none"/>'
                f'<text x="{max(high, scale(value)) + 6:.1f}" y="{y + bar - 5}">{label}</text>')
            y += bar
        if best := limit(result):
            x = scale(best)
            parts.append(f'<path d="M{x:.1f} {start - 4}V{y + 2}" stroke="#222" '
                         'stroke-dasharray="4 3" fill="none"/>')
        parts.append(f'<text x="{left - 10}" y="{(start + y) / 2 + 3}" text-anchor="end">'
                     f"{escape(model)}</text>")
        y += gap
    legend = [f'<rect x="{left + 110 * i}" y="36" width="11" height="11" rx="2" '
              f'fill="{COLOURS[name]}"/><text x="{left + 110 * i + 16}" y="46">{escape(name)}</text>'
              for i, name in enumerate(names)]
    if any(limit(result) for _, result in groups):
        x = left + 110 * len(names)
        legend.append(f'<path d="M{x} 42h20" stroke="#222" stroke-dasharray="4 3"/>'
                      f'<text x="{x + 26}" y="46">the machine\'s limit</text>')
    width = left + wide + 190
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" '
        f'height="{y}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{y}" fill="#fff"/>'
        f'<text x="{left}" y="22" font-size="15">{escape(heading)}</text>'
        + "".join(legend + parts) + "</svg>\n"
    )
