"""What was measured, as a table."""

from optimum_si.evaluation.results import Evaluation, Evaluations
from optimum_si.evaluation.tasks import ZERO_SHOT_TASKS, TaskScore


def scored(model: str, value: float) -> Evaluation:
    tasks = {name: TaskScore("acc", value, 0.01, 100) for name in ZERO_SHOT_TASKS}
    return Evaluation(model, "PyTorch", 0.5, "wikitext2", 20 * value, tasks)


def test_the_table_of_the_seven_tasks_has_their_mean_and_warns_of_other_means():
    lines = Evaluations([scored("a/model", 0.6), scored("b/model", 0.5)]).table().splitlines()
    assert lines[0].split() == ["a/model", "b/model"], "names that are alike are whole"
    assert lines[3].split() == ["perplexity", "12", "10", "(0.833", "x)"]
    assert lines[4].split() == ["boolq", "(acc)", "60.0", "±", "1.0", "50.0", "±", "1.0", "(-10.0)"]
    mean = ["mean", "of", "7", "tasks", "60.0", "±", "0.4", "50.0", "±", "0.4", "(-10.0)"]
    assert lines[11].split() == mean
    assert lines[-1].startswith("Papers leave out some of these tasks")


def test_other_metrics_than_accuracies_are_printed_as_they_are():
    other = Evaluation("model", "PyTorch", 0.0, tasks={"translate": TaskScore("bleu", 31.25, None, 9)})
    assert Evaluations([other]).table().splitlines()[3].split() == ["translate", "(bleu)", "31.2500"]
