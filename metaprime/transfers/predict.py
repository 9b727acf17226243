"""Predicts and scores with a saved model of a transfer, or of priming with a trained head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.models.folder import refuse_bad_folder
from metaprime.runs.artifact import check_artifact, load_artifact, load_encoder_of, trained_groups
from metaprime.tasks import Task
from metaprime.tasks.task import Scores
from metaprime.transfers.texts import notice_unspaced, read_together, split_words
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.data.rows import Example
    from metaprime.models.task_model import TaskModel

Words = Sequence[str]

CHECKED_TEXT = "The self-check of a loaded adapter runs on these words , whatever language it was trained on ."


class Predictor:
    """A fine-tuned model that stays in memory: call it with one sentence or many.

    Attributes:
        task: the task of the head; `task.labels` are its labels.
        model: encoder, adapter and head, in evaluation mode.

    Example:
        >>> tagger = metaprime.load(results[0].path)
        >>> [word for word, tag in tagger("Mali bono.")]
        ['Mali', 'bono', '.']
        >>> len(tagger(["Mali bono.", "Bono"]))
        2
    """

    def __init__(self, task: Task, model: TaskModel) -> None:
        """Wraps a model in evaluation mode with its task."""
        self.task, self.model = task, model

    def __call__(self, text: str | Sequence[str | Words]) -> Any:
        """Predicts one sentence, or several in as few passes as possible.

        Args:
            text: one sentence; or several, each a string or a list of words. Strings are split at
                white space, and punctuation is split off both ends of words. Words in a list stay
                as they are. A task over whole texts does not split them; of a pair, each item is a
                list of its two texts.

        Returns:
            (word, tag) pairs for a sentence of a tagging task, the answer for another task; for
            several sentences a list of these.

        Raises:
            MetaprimeError: a sentence has no word, or a word is not Unicode.
        """
        split: Callable[[str], list[str]] = (lambda whole: [whole]) if self.task.config.texts else split_words
        if isinstance(text, str):
            return self.predict([split(text)])[0]
        return self.predict([split(item) if isinstance(item, str) else list(item) for item in text])

    def predict(self, sentences: Sequence[Words], places: Sequence[str] = ()) -> list[Any]:
        """Predicts sentences that are split into words: `predictor.predict([["Mali", "bono"]])`.

        Args:
            sentences: the words of each; of a task over whole texts, its texts.
            places: what messages call each sentence, such as file and line; empty: by its number.

        Raises:
            MetaprimeError: a sentence has no word, or a word is not Unicode.
        """
        if not sentences:
            return []
        if any(not words for words in sentences):
            raise MetaprimeError("a text has no word: give at least one word for each sentence")
        for word in (word for words in sentences for word in words if not _is_unicode(word)):
            raise MetaprimeError(f"the word {word!r} has a byte that is not UTF-8: convert the text to UTF-8")
        texts = self.task.config.texts
        if len(texts) > 1 and (wrong := next((one for one in sentences if len(one) != len(texts)), None)) is not None:
            raise MetaprimeError(
                f"this task reads {read_together(texts)}: give {len(texts)} texts for each answer, not {len(wrong)}"
            )
        if texts and any(not part.strip() for one in sentences for part in one):
            raise MetaprimeError("a text is empty: give at least one word")
        if not texts:
            notice_unspaced(sentences)
        named = places or [f"text {number}" for number in range(1, len(sentences) + 1)]
        examples = [self._example(place, words) for place, words in zip(named, sentences, strict=True)]
        rows = self.task.encode(examples)
        # Imported here, as in `load`.
        import torch

        with torch.no_grad():
            answers = self.task.predict(self.model, dict(self.model.named_parameters()), rows)
        return [self.task.kind.present(row.example, answer) for row, answer in zip(rows, answers, strict=True)]

    def _example(self, place: str, words: Words) -> Example:
        """Makes the example of a sentence; what is refused is named by its place."""
        try:
            return replace(self.task.example(words), origin=place)
        except MetaprimeError as error:
            raise MetaprimeError(f"{place}: {error}") from None

    def scores(self, source: str, languages: Sequence[str], split: str = "test") -> dict[str, Scores]:
        """Scores one split of several languages: `predictor.scores("conll:ner", ["sw"])["sw"].headline`.

        Args:
            source: corpus of the languages, such as `conll:DIR`.
            languages: languages of the corpus to score.
            split: split of each language.

        Raises:
            MetaprimeError: no language is named, or a split cannot be read.
        """
        if not languages:
            raise MetaprimeError("metaprime evaluate: name at least one language of the source")
        # Imported here, as in `load`.
        from metaprime.transfers import evaluate as scoring

        values = {name: value.detach() for name, value in self.model.named_parameters()}
        scores = {}
        for language in languages:
            rows = self.task.encode(self.task.read(source, language, split))
            scores[language], _ = scoring.evaluate(self.model, self.task, values, rows)
        return scores


def load(folder: str | Path, trust_remote_code: bool = False) -> Predictor:
    """Loads a saved model to predict with.

    Args:
        folder: folder of a cell, `<run.output>/transfer/<encoder>/<cell>`, or a `primed` folder.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Returns:
        A predictor that stays in memory.

    Raises:
        MetaprimeError: metaprime did not write the folder, its encoder has changed, or its head is
            a random draw.

    Example:
        >>> tagger = metaprime.load(results[0].path)
        >>> tagger.task.labels[0]
        'O'
    """
    check_predicts(folder)
    # Imported here: a wrong folder is refused before torch is loaded.
    from metaprime.build.data import restored_task
    from metaprime.build.model import build_model
    from metaprime.models.task_model import assign

    artifact = load_artifact(Path(folder))
    encoder = load_encoder_of(artifact, trust_remote_code)
    task = restored_task(artifact.task, encoder, artifact.method)
    # The self-check takes any text that is long enough: a ReLU unit may be zero at a few positions.
    text = task.encode([task.example(CHECKED_TEXT.split())])
    model = build_model(encoder, task, artifact.method, text)
    assign(model, artifact.values)
    return Predictor(task, model)


def check_predicts(folder: str | Path) -> None:
    """Refuses a folder that cannot be loaded to predict with, as far as its files tell: `check_predicts("run/primed")`.

    Raises:
        MetaprimeError: metaprime did not write the folder, its head is a random draw, or there is no
            folder of its encoder.
    """
    artifact = check_artifact(Path(folder))
    if "head" not in trained_groups(artifact):
        raise MetaprimeError(
            f"{folder}: priming with outer.head reset or keep leaves a random head, which cannot predict: give the folder of a "
            "transfer, or prime with outer.head=meta"
        )
    refuse_bad_folder(artifact.encoder)


def predict(folder: str | Path, text: str, trust_remote_code: bool = False) -> Any:
    """Predicts one sentence; equal to `load(folder)(text)`.

    Args:
        folder: folder of a cell, `<run.output>/transfer/<encoder>/<cell>`, or a `primed` folder.
        text: the sentence, split at white space; punctuation is split off both ends of words.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Returns:
        (word, tag) pairs for a tagging task, the answer for another task.

    Raises:
        MetaprimeError: the folder cannot be loaded, or the text is empty.

    Example:
        >>> metaprime.predict(results[0].path, "Bono")[0][0]
        'Bono'
    """
    return load(folder, trust_remote_code)(text)


def evaluate(
    folder: str | Path, source: str, languages: Sequence[str], split: str = "test", trust_remote_code: bool = False
) -> dict[str, Scores]:
    """Scores a saved model on one split of several languages: those it was fine-tuned on, or others.

    Args:
        folder: folder of a cell, `<run.output>/transfer/<encoder>/<cell>`, or a `primed` folder.
        source: corpus of the languages, such as `conll:DIR`.
        languages: languages of the corpus to score.
        split: split of each language to score.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Returns:
        Language -> scores: `headline`, and `details` as they are in a cell's record.

    Raises:
        MetaprimeError: the folder cannot be loaded, or a split cannot be read.

    Example:
        >>> scores = metaprime.evaluate(results[0].path, "synthetic:", ["qao"])
        >>> 0 <= scores["qao"].headline <= 100
        True
    """
    return load(folder, trust_remote_code).scores(source, languages, split)


def _is_unicode(word: str) -> bool:
    """Returns False for text with bytes that were not UTF-8, which Python holds as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in word)
