"""Generation with images on the way, on tiny models in the real formats: the cache, padding, and who waits for whom."""

import pytest
import torch

from tests.language.test_global_context import small_vision
from tests.tiny_models import causal_lm, llava, qwen
from zoo.language.causal_lm import CausalLM
from zoo.language.global_context import CausalContext, GlobalContext
from zoo.language.interleaved_generation import generate_interleaved
from zoo.language.vision_language import VisionLanguageContext


@pytest.fixture(scope="module", params=["causal_lm", "llava", "qwen"])
def context(request, tmp_path_factory) -> GlobalContext:
    """A model whose end-of-sequence token is never likely, so that there is something to generate."""
    context = context_of(request.param, tmp_path_factory)
    context.lm.get_output_embeddings().weight.data[context.eos_token_id] = 0
    return context


def context_of(name: str, tmp_path_factory) -> GlobalContext:
    folder = tmp_path_factory.mktemp("model") / name
    torch.manual_seed(0)
    if name == "causal_lm":
        return CausalContext(small_vision(), CausalLM(str(causal_lm(folder)))).eval()
    if name == "llava":
        return VisionLanguageContext(str(llava(folder))).eval()
    return VisionLanguageContext(str(qwen(folder)), image_size=56).eval()


def embeds(context: GlobalContext, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(context.tokens_per_image, context.width, generator=generator)


class Scripted:
    """An image after every ``period`` tokens of a sample, at most ``most`` times; every token counts as a full stop."""

    def __init__(self, context: GlobalContext, periods: list[int], most: int = 2) -> None:
        self.context, self.periods, self.most = context, periods, most
        self.given: list[list[int]] = [[] for _ in periods]
        self.asked: list[int] = [0] * len(periods)
        self.together: list[list[int]] = []

    def is_due(self, index: int, text: str) -> bool:
        self.asked[index] += 1
        return self.asked[index] % self.periods[index] == 0 and len(self.given[index]) < self.most

    def provide(self, texts: dict[int, str]) -> list[torch.Tensor]:
        self.together.append(list(texts))
        for index in texts:
            self.given[index].append(10 * index + len(self.given[index]))
        return [embeds(self.context, self.given[index][-1]) for index in texts]


@pytest.fixture
def every_token_is_a_full_stop(context, monkeypatch):
    decode = context.tokenizer.decode
    monkeypatch.setattr(
        type(context.tokenizer), "decode", lambda self, ids, **options: decode.__func__(self, ids) + "."
    )


def prompts_of(context: GlobalContext) -> tuple[list[list[int]], list[torch.Tensor]]:
    texts = ["What is seen?", "Write a much longer report for this film, please.", "?"]
    prompts = [context.tokenize([(text, None)], context.tokens_per_image)[0] for text in texts]
    return prompts, [embeds(context, 100 + index) for index in range(len(texts))]


@torch.no_grad()
def logits_of(context: GlobalContext, sequence: list[int], images: list[torch.Tensor]) -> torch.Tensor:
    hidden = context.hidden_states(torch.tensor([sequence]), [torch.cat(images)])
    logits = context.logits(hidden)
    logits[..., context.image_token_id] = -torch.inf
    return logits[0]


def test_prefill_equals_passes_without_a_cache(context, every_token_is_a_full_stop):
    """Each generated token is the likeliest after everything before it, images included, in one pass over the sequence."""
    prompts, films = prompts_of(context)
    script = Scripted(context, [3, 5, 4])
    results = generate_interleaved(context, prompts, films, 14, script)
    checked = 0
    for index, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        sequence, generated = list(prompt), []
        for number, segment in enumerate(result.segments):
            if number:
                sequence += context.image_block(context.tokens_per_image)
            generated += [(len(sequence) + offset, token) for offset, token in enumerate(segment)]
            sequence += segment
        images = [films[index], *(embeds(context, seed) for seed in script.given[index])]
        logits = logits_of(context, sequence, images)
        for position, token in generated:
            assert logits[position - 1, token] >= logits[position - 1].max() - 1e-4
            checked += 1
        assert len(result.segments) == 1 + len(script.given[index]) and len(script.given[index]) == 2
    assert checked == 3 * 14 or any(result.ended for result in results)


def test_a_batch_equals_its_samples_and_waits_for_one_prefill(context, every_token_is_a_full_stop):
    prompts, films = prompts_of(context)
    script = Scripted(context, [3, 5, 4])
    batch = generate_interleaved(context, prompts, films, 14, script)
    assert all(len(together) > 1 for together in script.together[:1]), "those that are ready first wait for the others"
    for index in range(3):
        alone = Replayed(context, script, index)
        (single,) = generate_interleaved(context, [prompts[index]], [films[index]], 14, alone)
        assert single.segments == batch[index].segments


class Replayed:
    """What ``script`` gave to one sample of a batch, for that sample alone."""

    def __init__(self, context: GlobalContext, script: Scripted, index: int) -> None:
        self.context, self.seeds, self.period = context, list(script.given[index]), script.periods[index]
        self.asked, self.next = 0, 0

    def is_due(self, index: int, text: str) -> bool:
        self.asked += 1
        return self.asked % self.period == 0 and self.next < len(self.seeds)

    def provide(self, texts: dict[int, str]) -> list[torch.Tensor]:
        self.next += 1
        return [embeds(self.context, self.seeds[self.next - 1])]


def test_without_images_it_is_generation_of_text(context):
    prompts, films = prompts_of(context)
    results = generate_interleaved(context, prompts, films, 8)
    answers = context.generate(prompts, films, 8)
    assert [result.texts[0].strip() for result in results] == [answer.text for answer in answers]
    assert [result.ended for result in results] == [answer.ended for answer in answers]
