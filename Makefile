# The course's own habits. Everything here is one cargo command; see README.md.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

BINARIES := tinykv tinykv-server tinyscheduler-server

.PHONY: default dev test lint ci clean project1 project2 project2aa project2ab project2ac project2a project2b project2c \
	project3 project3a project3b project3c project4 project4a project4b project4c

default:
	cargo build --release -p tinykv
	@mkdir -p bin
	@for binary in $(BINARIES); do install -m 755 "$(CARGO_TARGET_DIR)/release/$$binary" bin/; done
	@echo "built: $(BINARIES:%=bin/%)"

# A whole cluster in one process; stop it with Ctrl-C.
dev:
	cargo run --release -- dev

test:
	cargo test --workspace

lint:
	cargo xtask ci --only tidy --only fmt --only clippy --only doc

ci:
	cargo xtask ci

project1:
	cargo test -p storage --test project1

project2aa project2ab project2ac:
	cargo test -p raft --test project2a $@::

project2a:
	cargo test -p raft --test project2a

project2b:
	cargo test -p raftstore --test project2b

project2c:
	cargo test -p raft --test project2c
	cargo test -p raftstore --test project2c

project2: project2a project2b project2c

project3a:
	cargo test -p raft --test project3a

project3b:
	cargo test -p raftstore --test project3b

project3c:
	cargo test -p scheduler --test project3c

project3: project3a project3b project3c

project4a project4b project4c:
	cargo test -p txn --test $@

project4:
	cargo test -p txn --test project4a --test project4b --test project4c

clean:
	rm -rf bin
	cargo clean
