"""What one does with a posterior in a notebook: tables, questions, files and pictures.

A good answer: a result that can be read, asked and kept; loaded from its file it is what it was.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from awrs_ppl import LM, Categorical, Context, Posterior, run
from awrs_ppl.potentials import Regex


async def animal(ctx: Context, lm: LM) -> dict[str, str]:
    place = await ctx.sample(Categorical(["farm", "sea", "jungle"]), name="place")
    name = await ctx.generate(
        lm(f"An animal that lives in the {place} is the", stop=[",", "."]) * Regex(" [a-z]{3,10}"),
        max_tokens=5,
        name="animal",
    )
    await ctx.observe(lm(f"The{name} is"), " very big", name="big")
    return {"place": place, "animal": name.strip()}


def main(lm: LM) -> dict[str, Any]:
    posterior = run(animal, lm, n_particles=16, runs=2, seed=0)
    print(posterior)
    frame = posterior.to_dataframe()
    print(frame.sort_values("probability", ascending=False).head(3))
    places = posterior.marginal(field="place")
    print("places", places)
    print("top", posterior.top(3))
    print("lengths", posterior.map(lambda value: len(value["animal"])).probabilities)
    print("in the sea", posterior.probability(lambda value: value["place"] == "sea"))
    print(posterior.diagnose())
    print(posterior.explain())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "animals.json.gz")
        posterior.save(path)
        loaded = Posterior.load(path)
        html = posterior._repr_html_()  # what a notebook shows
        Path(folder, "animals.html").write_text(html)
        pictures = []
        try:
            import matplotlib

            matplotlib.use("Agg")
            from matplotlib import pyplot
        except ImportError:
            print("no matplotlib, so no plots")
        else:
            for plot in (posterior.plot_ess, posterior.plot_genealogy, posterior.plot_weights):
                picture = Path(folder, f"{plot.__name__}.png")
                figure, axes = pyplot.subplots()
                plot(axes)
                figure.savefig(picture)
                pyplot.close(figure)
                pictures.append(picture.stat().st_size)
    return {
        "posterior": posterior,
        "loaded": loaded,
        "frame": frame,
        "places": places,
        "html": html,
        "pictures": pictures,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
