"""A tokenizer with a vocabulary as an object of transformers, whatever its run: `AutoTokenizer` included.

    write_pretrained(speak_neuro.Tokenizer.load("runs/mine").learn_vocabulary(texts, 8192), "my-tokenizer/")
    AutoTokenizer.from_pretrained("my-tokenizer/", trust_remote_code=True)      # or, without downloaded code:
    from speak_neuro.api.hf import SpeakTokenizerHF; SpeakTokenizerHF.from_pretrained("my-tokenizer/")

Ids are the tokenizer's own and 4 more, for `<s> <pad> </s> <unk>`; its special tokens stand behind its pieces in both.
The folder is that of `Tokenizer.save`, which reads it too, and transformers' own files beside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from speak_neuro.api.boundaries import NETWORK, TABLE
from speak_neuro.api.folder import ABOUT, VOCABULARY
from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError
from speak_neuro.inference.frozen_tokenizer import FrozenTokenizer, Span

FILES = {
    "speak_file": ABOUT,
    "vocabulary_file": VOCABULARY,
    "table_file": TABLE,
    "network_config_file": f"{NETWORK}/config.json",
    "network_model_file": f"{NETWORK}/model.safetensors",
}


class SpeakTokenizerHF(FrozenTokenizer):
    """See the top of this module."""

    vocab_files_names = FILES

    def __init__(self, speak_file: str, vocabulary_file: str | None = None, **kwargs: Any) -> None:
        for name in FILES:  # all lie in one folder, which is read as a whole
            kwargs.pop(name, None)
        if speak_file is None or vocabulary_file is None:
            missing = ABOUT if speak_file is None else VOCABULARY
            raise SpeakError(
                f"{kwargs.get('name_or_path')}: holds no {missing}; write the folder with write_pretrained"
            )
        self.native = Tokenizer.load(Path(speak_file).parent)
        assert self.native.vocabulary is not None
        super().__init__(self.native.vocabulary.all, **kwargs)
        for name in self.native.special_tokens:
            if name in self._numbers:
                raise SpeakError(f"special token {name!r} is also a piece; allowed in transformers: a name of its own")
        # Behind the pieces, as in the native tokenizer.
        self.add_tokens(list(self.native.special_tokens), special_tokens=True)

    def tokens(self, text: str) -> list[str]:
        """SPEAK's own tokens of `text`, whatever the pieces."""
        return self.native.tokens(text)

    def pieces_of(self, text: str) -> tuple[list[int], list[Span]]:
        """The tokenizer's own ids, and the characters that each comes from."""
        found = self.native.encode_with_offsets(text)
        return found.ids.tolist(), [(start, end) for start, end in found.offsets.tolist()]

    def text_of(self, raw: bytes) -> str:
        """As `Tokenizer.decode`."""
        try:
            text = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "replace")
        return self.native.boundaries.restore(text)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the tokenizer's folder."""
        if filename_prefix:
            raise SpeakError(f"filename_prefix is {filename_prefix!r}; allowed: none, the folder's names are fixed")
        self.native.save(save_directory)
        return tuple(str(path) for name in FILES.values() if (path := Path(save_directory) / name).exists())


def write_pretrained(tokenizer: Tokenizer, folder: str | os.PathLike[str], **kwargs: Any) -> SpeakTokenizerHF:
    """Write `tokenizer` for transformers, with a model card, and return it as transformers reads it.

    `kwargs` are transformers', such as `model_max_length`, `padding_side` or `chat_template`.
    """
    if tokenizer.vocabulary is None:
        raise SpeakError(
            "this tokenizer has no vocabulary, so no ids; make one: tokenizer.learn_vocabulary(texts, size)"
        )
    place = Path(folder)
    tokenizer.save(place)
    files = {name: str(place / FILES[name]) for name in ("speak_file", "vocabulary_file")}
    made = SpeakTokenizerHF(**files, **kwargs)
    made.save_pretrained(place)
    with atomic_write(place / "README.md", "w") as stream:
        stream.write(model_card(tokenizer))
    return made


def model_card(tokenizer: Tokenizer) -> str:
    """What a reader of the folder has to know."""
    vocabulary = tokenizer.vocabulary
    assert vocabulary is not None
    units = {
        "ranges": "contextual ranges, the text between two hard resets of the neuron: no id crosses one",
        "tokens": "SPEAK's tokens: no id crosses one",
        "whole": "whole tokens of SPEAK; a token that is not in the vocabulary is written in bytes",
    }[vocabulary.fitted]
    specials = ", ".join(f"`{name}`" for name in tokenizer.special_tokens) or "none"
    longest = max(vocabulary.tokens, key=len, default=b"").decode("utf-8", "replace")
    return CARD.format(size=tokenizer.vocab_size, units=units, specials=specials, longest=longest)


CARD = """---
library_name: transformers
tags: [tokenizer, speak, spiking]
---

# A SPEAK tokenizer

Token boundaries come from one spiking neuron that was trained with a language model. Made with the Python package
`speak-neuro`.

- {size:,} ids: 256 bytes, pieces, and the special tokens {specials}; in transformers four more, `<s> <pad> </s> <unk>`,
  at 0 to 3
- pieces are fitted into {units}
- the longest piece: `{longest}`
- every text has ids

```python
from transformers import AutoTokenizer  # pip install 'speak-neuro[hf]'

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER", trust_remote_code=True)
tokenizer(["a line of text", "another"], padding=True, return_tensors="pt")
```

```python
import speak_neuro

tokenizer = speak_neuro.Tokenizer.load("THIS_FOLDER")  # the same without transformers
tokenizer.decode(tokenizer.encode("a line of text"))
```
"""

SpeakTokenizerHF.register_for_auto_class("AutoTokenizer")
