module Wave end
