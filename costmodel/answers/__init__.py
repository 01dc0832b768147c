"""What pages, commands and reports say of a question, made from the library's values: rows, tables, cards and sentences."""
