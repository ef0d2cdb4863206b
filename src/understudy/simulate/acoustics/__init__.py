"""Sound in rooms, by the wave equation.

- :class:`RoomAcoustics`: pulses in a room of any polygon, many sources at once.
- :class:`RationalAdmittance`, :func:`porous_absorber`: walls that absorb some frequencies more.
- :func:`wall`: a wall of a description in words.
- :func:`impulse_response`: what a receiver hears, perhaps as a WAV file.
"""

from understudy.simulate.acoustics.impedance import RationalAdmittance, porous_absorber, wall
from understudy.simulate.acoustics.room_acoustics import RoomAcoustics, impulse_response

__all__ = ["RationalAdmittance", "RoomAcoustics", "impulse_response", "porous_absorber", "wall"]
