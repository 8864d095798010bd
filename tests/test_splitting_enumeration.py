from __future__ import annotations

import pytest
from splitting_dags import all_down_sets, from_reads, parallel_chains, peak_of, random_dag

from onnxopt.splitting.enumeration import Cuts, enumerate_cuts, separators
from onnxopt.splitting.growing import bits
from onnxopt.splitting.sides import side_of

SEEDS = range(200)


def _cuts_by_operators(cuts: Cuts) -> dict[frozenset[int], int]:
    return {frozenset(cuts.operators(cut)): cut for cut in range(len(cuts))}


def test_every_down_set_of_random_models_is_found_once() -> None:
    for seed in SEEDS:
        dag = random_dag(seed)
        cuts = enumerate_cuts(dag)
        assert len(set(cuts.device)) == len(cuts), seed
        assert set(_cuts_by_operators(cuts)) == set(all_down_sets(dag)), seed
        assert cuts.is_complete


def test_what_a_cut_sends_holds_and_needs_is_as_defined() -> None:
    for seed in SEEDS:
        dag = random_dag(seed)
        cuts = enumerate_cuts(dag)
        macs = cuts.sums([op.macs for op in dag.operators])
        sent = cuts.sent([tensor.size_bytes for tensor in dag.tensors])
        for chosen, cut in _cuts_by_operators(cuts).items():
            assert cuts.crossing[cut] == dag.crossing(chosen), seed
            weights = {weight for v in chosen for weight in dag.operators[v].weights}
            assert cuts.weight_bytes[cut] == sum(dag.weight_bytes[w] for w in weights)
            assert cuts.peak_bytes[cut] == peak_of(dag, sorted(chosen)), seed
            assert cuts.peak_bytes[cut] == side_of(dag, chosen).peak_bytes, seed
            assert macs[cut] == sum(dag.operators[v].macs for v in chosen)
            assert sent[cut] == sum(dag.tensors[t].size_bytes for t in dag.crossing(chosen))
            made = {t for v in chosen for t in dag.operators[v].makes}
            assert set(cuts.outputs(cut)) == {t for t in made if dag.tensors[t].is_output}


def test_the_operators_of_a_cut_are_what_its_tensors_and_outputs_need() -> None:
    """So a cut is named by these, whatever the numbers of operators are."""
    for seed in SEEDS:
        dag = random_dag(seed)
        cuts = enumerate_cuts(dag)
        named = {(cuts.crossing[cut], cuts.outputs(cut)) for cut in range(len(cuts))}
        assert len(named) == len(cuts), seed


def test_parents_come_first_and_lack_one_operator() -> None:
    cuts = enumerate_cuts(random_dag(3, most=12))
    for cut in range(1, len(cuts)):
        assert cuts.parent[cut] < cut
        assert cuts.device[cut] == cuts.device[cuts.parent[cut]] | 1 << cuts.added[cut]
    assert cuts.device[cuts.whole] == (1 << len(cuts.dag.operators)) - 1


def test_separators_are_comparable_with_all_others() -> None:
    diamond = from_reads([[0], [1], [1], [2, 3], [4]])
    assert separators(diamond) == (0, 3, 4)
    assert [(b.first, b.last) for b in enumerate_cuts(diamond).blocks] == [(1, 3)]


def test_distinct_cuts_are_legal_and_differ_in_what_they_send() -> None:
    for seed in SEEDS:
        dag = random_dag(seed, why_not=0.3)
        cuts = enumerate_cuts(dag)
        found = [cuts.crossing[cut] for cut in cuts.distinct()]
        legal = {
            dag.crossing(chosen)
            for chosen in all_down_sets(dag)
            if not any(dag.tensors[t].why_not for t in dag.crossing(chosen))
            and not any(
                tensor.is_output and tensor.why_not and tensor.producer not in chosen
                for tensor in dag.tensors
                if tensor.producer is not None
            )
        }
        assert len(found) == len(set(found)) and set(found) == legal, seed


@pytest.mark.parametrize("most", [1, 5, 79])
def test_a_block_above_the_cap_keeps_the_cuts_in_order_and_leaves_others_whole(most: int) -> None:
    dag = parallel_chains(4, 2)
    assert len(enumerate_cuts(dag)) == 3**4 + 2
    cuts = enumerate_cuts(dag, most=most)
    (block,) = cuts.blocks
    assert not block.is_complete and not cuts.is_complete
    assert set(cuts.device) == {(1 << count) - 1 for count in range(11)}


def test_a_cut_can_be_added_to_a_block_above_the_cap() -> None:
    dag = parallel_chains(4, 2)
    wanted = 0b0010100011
    cuts = enumerate_cuts(dag, most=5, more=[wanted])
    cut = cuts.device.index(wanted)
    assert cuts.crossing[cut] == dag.crossing(set(bits(wanted)))
    assert cuts.sums([1.0] * 10)[cut] == 4
