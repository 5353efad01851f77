"""The house style itself: colours and type, and what HoloViews has no option for."""
