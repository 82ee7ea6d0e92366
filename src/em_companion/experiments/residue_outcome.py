TABLE = "n3-residues"
