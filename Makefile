# make demo: the main job on the embedded default.   make test: the tests.   Both need only Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
LEARN2LEARN := $(VENV)/.learn2learn
PEERS := $(VENV)/.peers
ADAPTERHUB := .venv-adapterhub

AUDIT := .venv-audit

.PHONY: demo reports test test-all bench bench-data bench-peers lint house learn2learn adapterhub audit clean

demo: $(READY)
	$(BIN)/metaprime demo recipes/configs/demo.yaml

# The report of every suite that is recorded in runs/, with curves, languages and errors: no page is kept in git.
reports: $(READY)
	$(BIN)/python docs/reports.py

test: $(READY)
	-@$(MAKE) --no-print-directory learn2learn
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY)
	-@$(MAKE) --no-print-directory learn2learn
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Beside every peer, an hour and a half on an idle machine; the peers are installed without what they would change.
bench: $(READY) $(LEARN2LEARN) $(PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/meta_step.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/passes.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/many_transfers.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/estimate.py

# On sentences and an encoder of your own: what a start costs, how much is padding, a meta-step beside every peer (an
# hour at 3 rounds), where a run's time goes. ENCODER is the folder of a BERT. For example
# make bench-data SOURCE=parquet:data/wikiann LANGUAGES=de,en,es,nl ENCODER=DIR
comma := ,
ROUNDS_REAL ?= 3
bench-data: $(READY)
	$(if $(and $(SOURCE),$(LANGUAGES),$(ENCODER)),,$(error bench-data needs SOURCE=, LANGUAGES= and ENCODER=, as in the Makefile))
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/start.py $(SOURCE) $(LANGUAGES) $(ENCODER)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/padding.py $(SOURCE) $(ENCODER) $(subst $(comma), ,$(LANGUAGES))
	-@$(MAKE) --no-print-directory $(LEARN2LEARN) $(PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/meta_step.py --source $(SOURCE) --languages $(LANGUAGES) --encoder $(ENCODER) --rounds $(ROUNDS_REAL)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run_share.py recipes/configs/minilm_wikiann.yaml encoder.name=$(ENCODER) \
		data.source=$(SOURCE) data.languages=[$(LANGUAGES)] outer.steps=150

# Beside the scripts that one would write instead, of transformers' Trainer. ROUNDS, DROPOUT (on, off or both: how the
# scripts train) and KEYS (key=value of the config) may be given too. For example
# make bench-peers SOURCE=parquet:data/masakhaner2 LANGUAGES=hau,swa,yor ENCODER=DIR SEEDS=0,1 LABELS=PER,ORG,LOC,DATE
ROUNDS ?= 5
DROPOUT ?= both
bench-peers: $(READY)
	-@$(MAKE) --no-print-directory adapterhub
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_peers.py --rounds $(ROUNDS) --dropout $(DROPOUT) --adapterhub $(ADAPTERHUB)/bin/python \
		$(if $(SOURCE),'data.source=$(SOURCE)') $(if $(LANGUAGES),'data.target_languages=[$(LANGUAGES)]') \
		$(if $(ENCODER),'transfer.encoder=$(ENCODER)') $(if $(SEEDS),'transfer.seeds=[$(SEEDS)]') \
		$(if $(LABELS),'task.labels=[$(LABELS)]') $(KEYS)

$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --no-deps torchopt==0.7.3 optree==0.20.0 graphviz higher==0.2.1
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Sizes, imports, signatures, names and docstrings of the package, each beside its limit; the standard library is enough.
house:
	$(PYTHON) tests/house.py

learn2learn: $(LEARN2LEARN)

$(READY): setup.cfg pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[dev,report]"
	touch $@

# Its requirements would change 65 packages, and its shipped C sources do not compile on Python >= 3.11: build it from
# the Cython sources, without requirements. Needs a C compiler.
$(LEARN2LEARN): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt cython setuptools wheel
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -C--global-option=build_ext learn2learn==0.2.0
	touch $@

adapterhub: $(ADAPTERHUB)/.installed

# AdapterHub's package needs transformers 4: in an environment of its own, with our versions of what both use.
$(ADAPTERHUB)/.installed: constraints.txt
	test -d $(ADAPTERHUB) || $(PYTHON) -m venv $(ADAPTERHUB)
	$(ADAPTERHUB)/bin/python -m pip install --quiet $$(grep -E '^(torch|accelerate|seqeval|numpy|pyarrow)==' constraints.txt) \
		adapters==1.3.0 transformers==4.57.6 datasets==5.0.1
	touch $@

# Known vulnerabilities of the pinned versions; needs the network. In an environment of its own: it must not change ours.
audit:
	test -d $(AUDIT) || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
