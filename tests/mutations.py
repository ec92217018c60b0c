"""
Faults that the tests must see: each is put into a copy of the project, and a named test has to fail there.

    python tests/mutations.py            all of them (minutes); `make mutations`
    python tests/mutations.py NAME ...   some of them

It is no part of `make test`. A fault whose place has moved is an error: the list is kept as true as the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parent.parent
FOLDERS = ("app", "beexformer", "model", "recipes", "report", "tests", "training", "docs", "deploy")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "docker-compose.yml", "constraints.txt")


@dataclass(frozen=True)
class Mutation:
    """`before`, which stands exactly once in `file`, becomes `after`; `test` (a pytest node) has to fail."""

    name: str
    file: str
    before: str
    after: str
    test: str


MUTATIONS = [
    Mutation(
        "a key is accepted by any prefix of it",
        "app/admission.py",
        "secrets.compare_digest(given, key)",
        "(bool(given) and key.startswith(given))",
        "tests/service/test_operation.py::test_keys_guard_everything_but_probes_metrics_and_docs",
    ),
    Mutation(
        "a key is accepted in another case",
        "app/admission.py",
        "secrets.compare_digest(given, key)",
        "secrets.compare_digest(given.lower(), key.lower())",
        "tests/service/test_operation.py::test_keys_guard_everything_but_probes_metrics_and_docs",
    ),
    Mutation(
        "a change of models is refused while workers are exchanged",
        "app/supervisor.py",
        "self._waiting.append((child, asked))",
        "self._answer(child, TRY_AGAIN)",
        "tests/service/test_supervisor.py::test_who_is_replaced_is_told_to_ask_again_and_its_successor_waits",
    ),
    Mutation(
        "a development row is trained on the other way round",
        "training/prepare.py",
        "scored += [rows.swapped() for rows in scored]",
        "pass",
        "tests/test_prepare.py::test_pairs_are_read_in_both_orders_where_that_is_asked_for",
    ),
    Mutation(
        "Server-Timing is in seconds",
        "app/context.py",
        "(1e3 * tokenize, 1e3 * queue, 1e3 * compute)",
        "(tokenize, queue, compute)",
        "tests/service/test_classify.py::test_server_timing_is_in_milliseconds",
    ),
    Mutation(
        "label smoothing is ignored",
        "training/prepare.py",
        "plan.soft_share, recipe.optim.label_smoothing,",
        "plan.soft_share, 0.0,",
        "tests/test_prepare.py::test_label_smoothing_is_in_the_targets",
    ),
    Mutation(
        "batches have the same members every epoch",
        "training/batches.py",
        "order = rng.permutation(len(lengths))",
        "order = np.random.default_rng(0).permutation(len(lengths))",
        "tests/test_batches.py::test_two_epochs_see_other_batches",
    ),
    Mutation(
        "a teacher has neither warm-up nor decay",
        "training/teacher.py",
        "self.schedule.step()",
        "pass",
        "tests/test_schedules.py::test_a_teacher_warms_up_and_decays",
    ),
    Mutation(
        "a teacher has no warm-up",
        "training/teacher.py",
        "round(WARMUP * self.steps), self.steps",
        "0, self.steps",
        "tests/test_schedules.py::test_a_teacher_warms_up_and_decays",
    ),
    Mutation(
        "tasks and backbones have no warm-up",
        "training/loop.py",
        "rising = min(1.0, (progress + 1e-3) / warmup) if warmup else 1.0",
        "rising = 1.0",
        "tests/test_schedules.py::test_a_task_warms_up_and_decays",
    ),
    Mutation(
        "the rate of tasks and backbones never decays",
        "training/loop.py",
        "rising * max(1.0 - progress, 0.003)",
        "rising",
        "tests/test_schedules.py::test_distillation_warms_up_and_decays",
    ),
    Mutation(
        "dev is evaluated on the embedding of training",
        "training/export.py",
        "network.embedding.weight.copy_(network.exported_embedding())",
        "pass",
        "tests/test_train.py::test_dev_is_evaluated_on_the_rows_of_the_embedding_that_are_exported",
    ),
    Mutation(
        "calibration stays in at a warm start",
        "training/warm_start.py",
        "calibrate.recorded(self.checkpoint.evaluation, self.checkpoint.config).take_back(exported)",
        "",
        "tests/test_train.py::test_a_warm_start_takes_the_calibration_back",
    ),
    Mutation(
        "a class bias stays in at a warm start",
        "training/calibrate.py",
        "bias.sub_(torch.from_numpy(self.bias)).mul_(temperature)",
        "bias.mul_(temperature)",
        "tests/test_train.py::test_a_warm_start_takes_the_calibration_back",
    ),
    Mutation(
        "a class bias is recorded and not in the weights",
        "training/calibrate.py",
        "bias.div_(temperature).add_(torch.from_numpy(self.bias))",
        "bias.div_(temperature)",
        "tests/test_export.py::test_a_class_bias_is_served_where_it_pays",
    ),
    Mutation(
        "a class bias is divided by temperatures",
        "training/calibrate.py",
        "bias.div_(temperature).add_(torch.from_numpy(self.bias))",
        "bias.add_(torch.from_numpy(self.bias)).div_(temperature)",
        "tests/test_calibrate.py::test_a_folded_network_says_what_is_calibrated",
    ),
    Mutation(
        "a class bias is adopted whether it pays or not",
        "training/calibrate.py",
        "return bool(gain.mean() > gain.std(ddof=1) / len(gain) ** 0.5)",
        "return True",
        "tests/test_calibrate.py::test_a_class_bias_that_pays_by_luck_is_not_adopted",
    ),
    Mutation(
        "scores on dev are calibrated by a class bias of the same rows",
        "training/calibrate.py",
        "calibrated[held_out] = fit(raw[others], labels[others], kind, biased).of(raw[held_out])",
        "calibrated[held_out] = fit(raw, labels, kind, biased).of(raw[held_out])",
        "tests/test_calibrate.py::test_halves_are_calibrated_by_the_bias_of_the_other_half",
    ),
    Mutation(
        "scores suppose the labelled rows' class shares the wrong way round",
        "training/trainer.py",
        "out.bias.add_(self.shift",
        "out.bias.sub_(self.shift",
        "tests/test_train.py::test_scores_suppose_the_labelled_rows_shares_where_that_is_asked_for",
    ),
    Mutation(
        "kernels have numba load all that it can compile",
        "model/kernel_compiler.py",
        "= _load_types, _load_code",
        "= all_types, all_code",
        "tests/test_kernel_compiler.py::test_what_kernels_do_without_is_loaded_for_others_alone",
    ),
    Mutation(
        "a teacher is resumed without its optimizer",
        "training/teacher.py",
        'self.optimizer.load_state_dict(result["optimizer"])',
        "pass",
        "tests/test_teacher.py::test_a_killed_teacher_goes_on_to_the_same_weights",
    ),
    Mutation(
        "the encoder sees pairs without segment ids",
        "training/bert.py",
        " + self.types(self.segments(ids, mask))",
        "",
        "tests/test_distill.py::test_the_encoder_is_told_which_text_of_a_pair_a_token_is_in",
    ),
    Mutation(
        "MPNet doesn't tell tokens before from those behind",
        "training/mpnet.py",
        "half * (distance > 0) + ",
        "",
        "tests/test_mpnet.py::test_its_states_are_the_librarys",
    ),
    Mutation(
        "keys beyond a text's last one have shares",
        "model/kernels.py",
        "splat_i16(-1 if j + 4 <= n else (1 << 8 * (n - j)) - 1)",
        "splat_i16(-1)",
        "tests/test_kernels.py::test_attention_on_integers_is_its_meaning_to_the_bit[1-2]",
    ),
    Mutation(
        "attention forgets all but the last 64 keys",
        "model/simd.py",
        "builder.fadd(builder.fmul(load(7, place_of(r, t), F16), old), result)",
        "builder.fadd(builder.fmul(zero(F16), old), result)",
        "tests/test_kernels.py::test_attention_on_integers_is_its_meaning_to_the_bit[1-129]",
    ),
    Mutation(
        "networks learn with keys as they are and answer with integers",
        "training/network.py",
        "            k = _rounded(k, _scale(sizes.amax((-1, -2), keepdim=True), attention.KEY))\n",
        "",
        "tests/test_network.py::test_attention_on_integers_says_nearly_what_it_learned_with_and_nothing_of_padding",
    ),
]


def copy(to: Path) -> None:
    """The project without its environment; compiled kernels come along."""
    ignore = shutil.ignore_patterns("node_modules", "*.egg-info")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, to / folder, symlinks=True, ignore=ignore)
    for file in FILES:
        shutil.copy(ROOT / file, to / file)


def passes(root: Path, test: str) -> bool:
    """Whether a test passes in the copy. Raises RuntimeError where it could not be run at all."""
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if ran.returncode not in (0, 1) or ("passed" not in ran.stdout + ran.stderr and "failed" not in ran.stdout):
        raise RuntimeError(f"{test} could not be run:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return ran.returncode == 0


def survives(mutation: Mutation, root: Path) -> str | None:
    """What is wrong with the test of this mutation, or None where the test sees it."""
    path = root / mutation.file
    whole = path.read_text()
    if whole.count(mutation.before) != 1:
        return f"{mutation.file} has {whole.count(mutation.before)} places like {mutation.before!r}, not one"
    path.write_text(whole.replace(mutation.before, mutation.after))
    try:
        return "its test passes all the same" if passes(root, mutation.test) else None
    finally:
        path.write_text(whole)


def main(names: list[str]) -> int:
    console = Console()
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy(root)
        for test in track(sorted({mutation.test for mutation in chosen}), "as it is", console=console):
            if not passes(root, test):
                console.print(f"[red]{test} fails without any mutation")
                return 1
        for mutation in track(chosen, "mutated", console=console):
            fault = survives(mutation, root)
            wrong += fault is not None
            console.print(f"{fault or 'caught'}: {mutation.name} ({mutation.test})", soft_wrap=True, highlight=False)
    console.print(f"{len(chosen) - wrong} caught, {wrong} not")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
