"""Print results as JSON for programs, and as rows, tables and trees for people; write the files of commands."""

from .rows import (
    DEFAULT_SIZES,
    Row,
    describe_config,
    describe_coverage,
    describe_formula,
    describe_ranks,
    describe_served,
    describe_size,
    describe_spec,
    describe_understood,
    print_heading,
    print_json,
    print_rows,
    print_table,
    write_file,
    writing,
)

__all__ = [
    "DEFAULT_SIZES",
    "Row",
    "describe_config",
    "describe_coverage",
    "describe_formula",
    "describe_ranks",
    "describe_served",
    "describe_size",
    "describe_spec",
    "describe_understood",
    "print_heading",
    "print_json",
    "print_rows",
    "print_table",
    "write_file",
    "writing",
]
