"""v7: the most active neurons of a model, and what each of them owes its input to."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from em_companion.evidence import residues
from em_companion.models import lora


@dataclass(frozen=True)
class Orphans:
    """The most active neurons: the row of `sources` that each belongs to, and whether it is an orphan."""

    row: np.ndarray
    orphan: np.ndarray


@torch.no_grad()
def orphaned(model: PreTrainedModel, sources: torch.Tensor, first: int, added: bool, top: float = 0.01) -> Orphans:
    """Return the orphans among the most active neurons of the layers from `first` on.

    sources [source, row, width]: with `added`, what is added to the stream before that layer, then what every node adds
    (see `components`). The input of a neuron is that of its gate, with the normalisation taken as it was.
    """
    own, heads = int(added), model.config.num_attention_heads
    nodes, layers, active, inputs = sources[own:], lora.decoder(model).layers, [], []
    for number in range(first, len(layers)):
        before = torch.cat([sources[:own], nodes[: 1 + number * (heads + 1) + heads]])
        block, stream = layers[number], before.sum(dim=0)
        norm = block.post_attention_layernorm
        scale = norm.weight * (stream.pow(2).mean(dim=-1, keepdim=True) + norm.variance_epsilon).rsqrt()
        gate = block.mlp.gate_proj(stream * scale)
        active.append((block.mlp.act_fn(gate) * block.mlp.up_proj(stream * scale)).abs())
        inputs.append((before, scale, block.mlp.gate_proj.weight))
    level = np.quantile(torch.stack(active).numpy(), 1 - top)
    rows, orphan = [], []
    for found, (before, scale, weight) in zip(active, inputs, strict=True):
        row, neuron = (found > level).nonzero(as_tuple=True)
        parts = torch.einsum("snw,nw->sn", before[:, row] * scale[row], weight[neuron]).numpy()
        share = residues.shares(parts)
        rows.append(row.numpy())
        orphan.append(share[0] > 0.5 if added else share.max(axis=0) < 0.1)
    return Orphans(np.concatenate(rows), np.concatenate(orphan).astype(float))
