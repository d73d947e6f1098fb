"""Writes a story with the model that comes along, as it comes, then says how fast that was.

python examples/generate.py "One day, a small dragon"
"""

import sys

import rwkvgraph as rg
from rwkvgraph import assets


def main(prompt: str = "Once upon a time", max_tokens: int = 100) -> None:
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.vocab_for(model.info.num_vocab))
    sampler = rg.Sampler(temperature=0.8, top_p=0.6, seed=7)

    print(prompt, end="", flush=True)
    story = rg.generate(model, tokenizer, prompt, max_tokens, sampler, stop="The End")
    for piece in story:
        print(piece.text, end="", flush=True)
    print()

    speed = story.timings.generation_speed
    if speed is not None:
        print(f"{story.timings.generated_tokens} tokens, {speed:.1f} a second", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "Once upon a time")
