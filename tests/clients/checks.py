"""Counts checks and prints one line for each. The last line is what the caller looks for."""


class Checks:
    """Stops at the first check that fails, by an exception that shows both sides."""

    def __init__(self):
        self.passed = 0

    def equal(self, name, found, expected):
        if found != expected:
            raise AssertionError(f"{name}: found {found!r:.200}, expected {expected!r:.200}")
        self.passed += 1
        print(f"ok {name}", flush=True)

    def raises(self, name, kinds, call):
        try:
            result = call()
        except kinds as error:
            self.passed += 1
            print(f"ok {name} ({error})", flush=True)
            return
        raise AssertionError(f"{name}: returned {result!r:.200}, an error was expected")

    def done(self):
        print(f"{self.passed} checks passed", flush=True)
