"""What looks at drawn tokens: when samples end, what they collect, which tokens may come next."""
