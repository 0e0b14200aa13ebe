"""The rules, compiled: one pass over memory for each step on a CPU, each operation rounded once. docs/one_pass.md

`program` records a rule and `cpp` writes it as C++; `build` compiles that when the package is installed; `library` finds what was built.
`jaxopt_impl` and `torch_ref` call it, and step without it where it is not there.
"""
