"""From runs to a site: what is stale, execution, assembly, pages, gates."""
