"""What every process needs: settings, errors, metrics, logging, clock, fault points, health, lifecycle.

| module      | what it holds |
|-------------|---------------|
| `errors`    | the one error tree, and what a caller may do next |
| `settings`  | one frozen model per role; flag > environment > ``sansfilm.toml`` > default |
| `logs`      | structured logging; the only place that configures it |
| `metrics`   | every metric, declared once |
| `clock`     | time and identity, passed in |
| `faults`    | named points at which a test may kill the process |
| `health`    | a process's own metrics and readiness on a Unix socket |
| `lifecycle` | signals, draining, and dying with one's parent |
| `retries`   | repeats a step while a passing fault lasts |
| `roll`      | which processes a supervisor means to run, and how often it started them again |
"""
