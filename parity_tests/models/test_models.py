"""The models: the same in both frameworks, and the weights carried over whole."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from optparity.datasets import characters, digits, text, unigram_entropy
from optparity.models import in_flax, in_torch, weights
from optparity.parity.bits import differing

pytestmark = pytest.mark.usefixtures("as_users_have_it")

MODELS = {
    "Cruncher": {"dim": 8, "num_layers": 3},
    "MLP": {"in_features": 64, "hidden_features": 32, "out_features": 10},
    "GPT": {"vocab_size": 92, "block_size": 16, "n_layer": 2, "n_head": 4, "n_embd": 32},
}


@pytest.fixture(params=MODELS)
def pair(request):
    """A model of each framework with other weights, and an input."""
    name = request.param
    arguments, rng = MODELS[name], np.random.default_rng(0)
    x = rng.integers(0, 92, (3, 16)) if name == "GPT" else rng.standard_normal((3, next(iter(arguments.values())))).astype(np.float32)
    module, twin = getattr(in_torch, name)(**arguments), getattr(in_flax, name)(**arguments, rngs=nnx.Rngs(0))
    # Larger than they start, and biases that are not 0: what is the same near 0 alone (the two forms of GELU, say) is not enough.
    weights.into_flax(twin, {name: rng.normal(0, 0.4, w.shape).astype(w.dtype) for name, w in weights.from_flax(twin).items()})
    return module, twin, x


def test_same_names_and_shapes_and_output(pair):
    module, twin, x = pair
    ours, theirs = weights.from_flax(twin), weights.from_torch(module)
    assert {name: (array.shape, array.dtype) for name, array in ours.items()} == {n: (a.shape, a.dtype) for n, a in theirs.items()}
    weights.into_torch(module, ours)
    expected = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(np.asarray(twin(jax.numpy.asarray(x))), expected, rtol=0, atol=3e-6 * abs(expected).max())


def test_same_gradients(pair):
    """So that the twins are the same function, and not only at one point."""
    module, twin, x = pair
    weights.into_torch(module, weights.from_flax(twin))
    module(torch.from_numpy(x)).square().mean().backward()
    gradients = nnx.grad(lambda twin, x: jax.numpy.square(twin(x)).mean())(twin, jax.numpy.asarray(x))
    ours = weights.names(nnx.to_pure_dict(gradients))
    for name, p in module.named_parameters():
        np.testing.assert_allclose(ours[name], p.grad.numpy(), rtol=0, atol=1e-5 * abs(p.grad).max().item(), err_msg=name)


def test_there_and_back_is_every_bit(pair):
    module, twin, _ = pair
    start = {name: np.array(array) for name, array in weights.from_torch(module).items()}
    weights.into_flax(twin, start)
    weights.into_torch(module, {name: np.zeros_like(array) for name, array in start.items()})
    weights.into_torch(module, weights.from_flax(twin))
    for name, array in weights.from_torch(module).items():
        assert not differing(array, start[name]).any(), name


def test_what_does_not_fit_is_refused_whole(pair):
    module, twin, _ = pair
    good = {name: np.ones_like(array) for name, array in weights.from_flax(twin).items()}
    first, *_, last = good
    for bad, message in [
        ({name: good[name] for name in good if name != last}, f"weights: {last} is only in the model"),
        ({**good, "other": good[last]}, "weights: other is only in the weights"),
        ({**good, last: good[last].astype(np.float64)}, f"weights: {last} has dtype float64; the model's has float32."),
        ({**good, last: good[last][None]}, f"weights: {last} has shape .*; the model's has "),
    ]:
        for model, into, out_of in ((module, weights.into_torch, weights.from_torch), (twin, weights.into_flax, weights.from_flax)):
            before = np.array(out_of(model)[first])
            with pytest.raises((ValueError, TypeError), match=message):
                into(model, bad)
            assert not differing(out_of(model)[first], before).any()


def test_the_articles_model_has_its_keys_and_size():
    model = in_torch.Cruncher(dim=4, num_layers=2)
    assert list(model.state_dict()) == ["layers.0.weight", "layers.1.weight", "final.weight"]
    assert sum(p.numel() for p in model.parameters()) == 36
    assert model(torch.randn(2, 4)).shape == (2,)


@pytest.mark.parametrize("make", [in_torch.GPT, lambda **sizes: in_flax.GPT(**sizes, rngs=nnx.Rngs(0))], ids=["torch", "flax"])
def test_gpt_refuses_heads_that_do_not_divide(make):
    with pytest.raises(ValueError, match=r"^GPT: n_head divides n_embd; got n_head 3, n_embd 32\.$"):
        make(vocab_size=9, block_size=8, n_layer=1, n_head=3, n_embd=32)


def test_gpt_does_not_see_the_future():
    model = in_torch.GPT(**MODELS["GPT"])
    tokens = torch.randint(0, 92, (1, 16))
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 92
    with torch.no_grad():
        same = (model(tokens) == model(changed)).all(-1)[0]
    assert same[:9].all()
    assert not same[9:].any()


def test_gpt2_small_is_gpt2_small():
    with torch.device("meta"):
        model = in_torch.GPT(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


def test_batches_are_permutations_of_what_is_learned_from():
    data = digits()
    per_epoch = len(data.inputs) // 64
    for epoch in range(2):
        batches = [data.batch(epoch * per_epoch + i + 1, 64, seed=0) for i in range(per_epoch)]
        seen = np.concatenate([inputs for inputs, _ in batches])
        assert len(np.unique(seen, axis=0)) >= len(np.unique(data.inputs, axis=0)) - len(data.inputs) % 64
    assert not np.array_equal(data.batch(1, 64, seed=0)[0], data.batch(1 + per_epoch, 64, seed=0)[0])
    assert not np.array_equal(data.batch(1, 64, seed=0)[0], data.batch(1, 64, seed=1)[0])
    assert len(data.inputs) + len(data.held_out_inputs) == 1797


def test_the_text_is_learned_by_its_next_character():
    data, alphabet = characters(64)
    assert len(text()) > 40_000
    inputs, targets = data.batch(5, 16, seed=0)
    assert inputs.shape == targets.shape == (16, 64)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    assert "".join(alphabet[token] for token in data.inputs[0]) == text()[:64]
    held_out = "".join(alphabet[token] for token in data.held_out_inputs.ravel())
    assert held_out in text()[len(text()) * 9 // 10 :]


def test_unigram_entropy_of_a_fair_coin_is_ln_2():
    assert unigram_entropy(np.array([0, 1, 1, 0])) == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match=r"^gpt: block_size < \d+, the length of the text held out; got 100000\.$"):
        characters(100_000)
