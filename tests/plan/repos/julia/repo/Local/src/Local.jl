module Local end
