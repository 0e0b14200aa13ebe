"""Pipelines, microbatches and contexts: what a device of a stage has, by hand."""

from dataclasses import replace

import pytest

from optparity.accounting import Setup, Transformer, estimate
from optparity.accounting.kept import Layer
from optparity.accounting.sharding import sequences
from optparity.accounting.stages import stages

from .models import preset

GPT = Transformer(100, 16, 8, 4, max_position_embeddings=32, tie_word_embeddings=False)


def blocks(stage):
    """Whose activations a device of the stage has, chunks being all alike."""
    return stage.passes * len(stage.chunks[0])


def executed(model, batch, seq, **how):
    return estimate(model, batch, seq, Setup(**how)).memory[1]


@pytest.mark.parametrize(
    ("how", "first", "last"),
    [  # blocks kept, on a first and a last stage of 2 layers
        ({"microbatches": 8}, 4 * 2, 1 * 2),
        ({"microbatches": 2}, 2 * 2, 1 * 2),
        ({"microbatches": 8, "schedule": "gpipe"}, 8 * 2, 8 * 2),
        ({"microbatches": 8, "pipeline_chunks": 2}, (2 * 3 + 4 + 1) * 1, (4 + 1) * 1),
    ],
)
def test_microbatches_ahead(how, first, last):
    one, other = stages(GPT.layers, Setup(pipeline_parallel=4, **how))
    assert (blocks(one), blocks(other)) == (first, last)
    assert [sum(map(len, stage.chunks)) for stage in (one, other)] == [2, 2]


def test_interleaved_is_the_papers():
    """L (1 + (p − 1) / (p v)) layers on the first stage: Korthikanti et al. 2022, section 4.2.3."""
    for layers, p, v in ((96, 8, 3), (64, 4, 2), (32, 4, 4)):
        one, _ = stages([Layer()] * layers, Setup(pipeline_parallel=p, pipeline_chunks=v, microbatches=8 * p))
        assert blocks(one) == layers * (p * v + p - 1) // (p * v)


def test_a_pipeline_divides_the_weights():
    """The fullest of both ends: a quarter of the blocks, and the embeddings or the head."""
    quarter = sum(p for part, p in GPT.parameters_by_part().items() if part in ("attention", "mlp")) // 4
    four = executed(GPT, 4, 32, pipeline_parallel=4, microbatches=4)
    norms, table = 4 * 2 * 16, 100 * 16
    ends = [quarter + norms + table + 32 * 16, quarter + norms + 2 * 16 + table]
    assert four.totals["parameters"] in [4 * end for end in ends]
    assert four.totals["gradients"] == four.totals["parameters"]


def test_without_a_pipeline_microbatches_accumulate():
    """A batch in parts keeps what one part keeps."""
    assert executed(GPT, 8, 32, microbatches=4) == executed(GPT, 2, 32)


def test_1f1b_on_the_first_stage_keeps_what_one_device_would():
    """p microbatches of L / p layers."""
    whole = GPT.block_activations(1, 32)["float32"] * 8
    (first, _) = stages(GPT.layers, Setup(pipeline_parallel=4, microbatches=4))
    assert blocks(first) * GPT.block_activations(1, 32)["float32"] == whole


def test_a_tied_head_is_there_twice():
    tied, untied = replace(GPT, tie_word_embeddings=True), GPT
    of_tied, of_untied = (executed(model, 4, 32, pipeline_parallel=4, microbatches=4) for model in (tied, untied))
    assert of_tied.totals["parameters"] == of_untied.totals["parameters"]
    assert tied.parameters < untied.parameters


def test_a_context_is_divided():
    """Activations of c times the tokens on c times the devices are the same; keys and values of all are gathered."""
    model, how = preset("llama3-8b"), {"mixed_precision": True, "attention": "sdpa", "recompute": "full"}
    one = executed(model, 1, 8192, **how)
    four = executed(model, 1, 32768, context_parallel=4, **how)
    assert one.activations == four.activations
    of_a_layer, of_the_head = sequences(model, 1, 32768, 8192, Setup(context_parallel=4, **how))
    assert of_a_layer == {"bfloat16": 4 * 2 * 32768 * 8 * 128}
    assert of_the_head == {}


def test_a_sequence_is_gathered():
    """Of sequence parallelism six times b s h in a layer, the head's input once."""
    setup = Setup(tensor_parallel=4, sequence_parallel=True)
    stream = 4 * 2 * 32 * 16
    assert sequences(GPT, 2, 32, 32, setup) == ({"float32": 6 * stream}, {"float32": stream})
    assert sequences(GPT, 2, 32, 32, Setup(tensor_parallel=4)) == ({}, {})


def test_zero_divides_over_contexts():
    how = {"mixed_precision": True, "attention": "sdpa", "zero_stage": 3}
    assert (
        executed(preset("llama3-8b"), 1, 8192, data_parallel=8, **how).totals["optimizer_state"]
        == executed(preset("llama3-8b"), 1, 8192, data_parallel=2, context_parallel=4, **how).totals["optimizer_state"]
    )
