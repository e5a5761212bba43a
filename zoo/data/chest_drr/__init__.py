"""chest_drr: chest radiographs rendered from one real CT, with exact truth."""
