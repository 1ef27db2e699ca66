package hostile

func userRows() []row { return nil }
