"""The compiled rules are the rules: what is built, what it computes, and what it is never given. docs/one_pass.md"""
